"""`onward canary`: statements that are signed away from the server, and checked anywhere.

What `sign` prints is what the API's `publishCanary` takes and `verify` reads: the signed text, the signature and the
public key, as one JSON object.
"""

import base64
import json
import os
from pathlib import Path
from typing import IO

import click

from appliance.command_line.invocation import Group, Invocation, json_option, pass_invocation
from appliance.command_line.output import plain, print_json, readable, say
from appliance.command_line.views import canary_view
from appliance.command_line.when import When, present
from appliance.model.refused import Refused
from appliance.model.time import wall_clock
from appliance.privacy.canary import Canaries, Canary, checked, composed
from appliance.privacy.sealing import KEY_OCTETS
from appliance.privacy.signatures import Signer
from appliance.storage.directory import PRIVATE_FILE_MODE

_PARTS = ("signedText", "signature", "publicKey")


@click.group(cls=Group)
def canary() -> None:
    """Make a key, sign the warrant canary, and check one. The key does not belong on the server."""


@canary.command()
@click.argument("key_file", metavar="FILE", type=click.Path(path_type=Path))
def keygen(key_file: Path) -> None:
    """Make a private key in FILE, which must not be there yet, and print its public key."""
    octets = os.urandom(KEY_OCTETS)
    descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(octets) + b"\n")
        file.flush()
        os.fsync(descriptor)
    click.echo(Signer(octets).public_key)
    say("Tell everybody the public key, and keep the file where the server is not.")


@canary.command()
@click.argument("key_file", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("statements", metavar="STATEMENT ...", nargs=-1, required=True)
@click.option("--expires", metavar="WHEN", type=When(past=False), default="30d", help="When it is to be an alarm: 30d.")
@click.pass_context
def sign(context: click.Context, key_file: Path, statements: tuple[str, ...], expires: int) -> None:
    """Sign statements with the private key in FILE, and print what to publish."""
    signer = _signer(key_file)
    text = composed(statements, present(context), expires)
    signature = signer.sign(text)
    # Whatever would be refused when it is published is refused here.
    checked(text, signature, signer.public_key)
    print_json(dict(zip(_PARTS, (text, signature, signer.public_key), strict=True)))


@canary.command()
@click.argument("signed", metavar="[FILE]", type=click.File(encoding="utf-8"), required=False)
@click.option("--key", metavar="PUBLIC_KEY", help="The public key that you know.")
@json_option
@pass_invocation
def verify(invocation: Invocation, signed: IO[str] | None, key: str | None, as_json: bool) -> None:
    """Check the canary in FILE (- for standard input), or the one that is published here."""
    found = _published(invocation) if signed is None else _from(signed)
    if key is not None and key != found.public_key:
        raise Refused(f"It is signed with another key: {found.public_key}")
    now = wall_clock()
    if found.expired(now):
        raise Refused(f"It expired at {readable(found.expires_at)}, and nobody has signed it anew: that is an alarm.")
    if as_json:
        print_json(canary_view(found, now))
        return
    for statement in found.statements:
        click.echo(plain(statement))
    say(f"Signed at {readable(found.issued_at)} with {found.public_key}; expires at {readable(found.expires_at)}.")


def _signer(key_file: Path) -> Signer:
    try:
        return Signer(base64.b64decode(key_file.read_bytes().strip(), validate=True))
    except ValueError:
        raise Refused(f"{key_file} is no private key as keygen makes it.") from None


def _published(invocation: Invocation) -> Canary:
    with invocation.records() as records:
        found = Canaries(records).current()
    if found is None:
        raise Refused("No canary has been published here.")
    return checked(found.signed_text, found.signature, found.public_key)


def _from(signed: IO[str]) -> Canary:
    try:
        document = json.load(signed)
        signed_text, signature, public_key = (document[name] for name in _PARTS)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused(f"That is no JSON object with {', '.join(_PARTS)}.") from None
    return checked(str(signed_text), str(signature), str(public_key))
