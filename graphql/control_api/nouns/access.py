"""Coming in: sign-up and sign-in, forgotten passwords, second factors."""

from dataclasses import replace

import strawberry

from appliance.access import devices
from appliance.access.clients import Client
from appliance.access.sessions import LIFETIME_S
from control_api.callers import Access, Caller, CallerKind
from control_api.context import Context, Cookie, Info
from control_api.errors import Payload
from control_api.fields import mutation
from control_api.nouns.accounts import Account


@strawberry.type
class SignUpPayload(Payload):
    """The same for every address: what has become of it stands in the letter."""

    account: Account | None = strawberry.field(
        default=None, description="Always null: whether the address had an account before is told to its owner alone."
    )


@strawberry.type
class VerifyEmailPayload(Payload):
    """The account, which can be signed in to now."""

    account: Account | None = None


@strawberry.type
class SignInPayload(Payload):
    """The account. The answer sets the cookie of its session."""

    account: Account | None = None


@strawberry.type
class SignOutPayload(Payload):
    """The session has ended, and its cookie with it."""


@strawberry.type(description="The same answer whether or not the address is known.")
class RequestPasswordResetPayload(Payload):
    """A letter is under way, or is not."""


@strawberry.type
class ResetPasswordPayload(Payload):
    """The account, with its new password."""

    account: Account | None = None


@strawberry.type
class ChangePasswordPayload(Payload):
    """It is changed, and all other sessions have ended."""


@strawberry.type
class EnableTwoFactorPayload(Payload):
    """What is shown once: the secret for the app, and the codes for the day when the app is lost."""

    otpauth_url: str | None = strawberry.field(default=None, description="For the app, as a QR code or typed.")
    recovery_codes: list[str] | None = strawberry.field(
        default=None, description="Each is good once, in place of a one-time code."
    )


@strawberry.type
class ConfirmTwoFactorPayload(Payload):
    """From now on signing in takes a code."""


@strawberry.type
class DisableTwoFactorPayload(Payload):
    """From now on signing in takes no code."""


@strawberry.type
class AccessMutations:
    """Coming in, and what it takes."""

    @mutation(Access.ANYONE, scope=None)
    def sign_up(self, info: Info, email: str, password: str) -> SignUpPayload:
        """Ask for an account. A letter to the address says how it goes on, or that it has an account already."""
        info.context.rooms.entrance.sign_ups.sign_up(email, password, _client(info.context.caller))
        return SignUpPayload()

    @mutation(Access.ANYONE, scope=None)
    def verify_email(self, info: Info, token: str) -> VerifyEmailPayload:
        """Verify an address with the token of the letter. Then it can be signed in with."""
        account = info.context.rooms.entrance.sign_ups.verify_email(token)
        return VerifyEmailPayload(account=Account.of(account))

    @mutation(Access.ANYONE, scope=None, sets_cookie=True)
    def sign_in(
        self, info: Info, email: str, password: str, one_time_code: str | None = strawberry.UNSET
    ) -> SignInPayload:
        """Begin a session, in place of the one that the browser has. With a second factor it takes a code, too."""
        context = info.context
        entrance = context.rooms.entrance
        signed_in = entrance.sign_ins.sign_in(email, password, one_time_code or None, _client(context.caller))
        _end_session(context)
        # What is asked for in the answer is asked for by who has just come in.
        context.caller = replace(
            context.caller,
            kind=CallerKind.SESSION,
            account=signed_in.account,
            credential_id=signed_in.session_id,
            scopes=frozenset(),
        )
        context.set_cookie(Cookie.SESSION, signed_in.session, LIFETIME_S)
        context.set_cookie(Cookie.DEVICE, signed_in.device, devices.LIFETIME_S)
        return SignInPayload(account=Account.of(signed_in.account))

    @mutation(Access.ANYONE, scope=None, sets_cookie=True)
    def sign_out(self, info: Info) -> SignOutPayload:
        """End this session. Where there is none, it is done already."""
        _end_session(info.context)
        info.context.take_cookie_away(Cookie.SESSION)
        return SignOutPayload()

    @mutation(Access.ANYONE, scope=None)
    def request_password_reset(self, info: Info, email: str) -> RequestPasswordResetPayload:
        """Have a link for a new password mailed to this address, where it has an account."""
        info.context.rooms.entrance.sign_ups.request_password_reset(email, _client(info.context.caller))
        return RequestPasswordResetPayload()

    @mutation(Access.ANYONE, scope=None)
    def reset_password(self, info: Info, token: str, new_password: str) -> ResetPasswordPayload:
        """Set a new password with the token of the letter. All other sessions of the account end."""
        context = info.context
        entrance = context.rooms.entrance
        account = entrance.sign_ups.reset_password(token, new_password, _session_id(context.caller))
        if context.over_http:
            # Whoever has read the letter is known from now on, and is not stopped by what others have tried.
            context.set_cookie(Cookie.DEVICE, entrance.sign_ins.devices.mark(account), devices.LIFETIME_S)
        return ResetPasswordPayload(account=Account.of(account))

    @mutation(Access.IN_PERSON)
    def change_password(self, info: Info, current_password: str, new_password: str) -> ChangePasswordPayload:
        """Set another password. All other sessions end."""
        context = info.context
        sign_ins = context.rooms.entrance.sign_ins
        account = context.caller.own_account
        changed = sign_ins.change_password(account, _session_id(context.caller), current_password, new_password)
        if context.over_http:
            context.set_cookie(Cookie.DEVICE, sign_ins.devices.mark(changed), devices.LIFETIME_S)
        return ChangePasswordPayload()

    @mutation(Access.IN_PERSON)
    def enable_two_factor(self, info: Info, password: str) -> EnableTwoFactorPayload:
        """Answers with the secret as an otpauth URL and the recovery codes; takes effect when confirmed with a code."""
        caller = info.context.caller
        sign_ins = info.context.rooms.entrance.sign_ins
        enrolment = sign_ins.enable_two_factor(caller.own_account, _session_id(caller), password)
        return EnableTwoFactorPayload(otpauth_url=enrolment.otpauth_url, recovery_codes=list(enrolment.recovery_codes))

    @mutation(Access.IN_PERSON)
    def confirm_two_factor(self, info: Info, one_time_code: str) -> ConfirmTwoFactorPayload:
        """Have signing in take a code from now on, by one that the app shows."""
        caller = info.context.caller
        sign_ins = info.context.rooms.entrance.sign_ins
        sign_ins.confirm_two_factor(caller.own_account, _session_id(caller), one_time_code)
        return ConfirmTwoFactorPayload()

    @mutation(Access.IN_PERSON)
    def disable_two_factor(self, info: Info, password: str, one_time_code: str) -> DisableTwoFactorPayload:
        """Have signing in take no code any more. A recovery code does as well."""
        caller = info.context.caller
        sign_ins = info.context.rooms.entrance.sign_ins
        sign_ins.disable_two_factor(caller.own_account, _session_id(caller), password, one_time_code)
        return DisableTwoFactorPayload()


def _client(caller: Caller) -> Client:
    return Client(address=caller.address, user_agent=caller.user_agent, device=caller.device)


def _session_id(caller: Caller) -> str:
    return caller.credential_id or "" if caller.kind is CallerKind.SESSION else ""


def _end_session(context: Context) -> None:
    caller = context.caller
    if caller.kind is CallerKind.SESSION:
        context.rooms.entrance.sessions.end(caller.own_account.id, _session_id(caller))
