"""The schema: all nouns together. `python -m control_api.schema` prints it; `graphql/schema.graphql` is that.

A new noun's mixins are added to the three classes at the end.
"""

import strawberry
from strawberry.schema.config import StrawberryConfig

from control_api.nouns.access import AccessMutations
from control_api.nouns.accounts import AccountMutations, AccountQueries
from control_api.nouns.aliases import AliasMutations
from control_api.nouns.blocks import BlockMutations, BlockQueries
from control_api.nouns.credentials import CredentialMutations
from control_api.nouns.domains import DomainMutations, DomainQueries
from control_api.nouns.explain import ExplainQueries
from control_api.nouns.following import LogSubscriptions
from control_api.nouns.help import HelpMutations, HelpQueries
from control_api.nouns.node import NodeQueries
from control_api.nouns.privacy import PrivacyMutations, PrivacyQueries
from control_api.nouns.queue import QueueMutations, QueueQueries
from control_api.nouns.status import StatusQueries
from control_api.scalars import DATE_TIME, DateTime


@strawberry.type
class Query(
    AccountQueries,
    BlockQueries,
    DomainQueries,
    ExplainQueries,
    HelpQueries,
    NodeQueries,
    PrivacyQueries,
    QueueQueries,
    StatusQueries,
):
    """Everything that can be read."""


@strawberry.type
class Mutation(
    AccessMutations,
    AccountMutations,
    AliasMutations,
    BlockMutations,
    CredentialMutations,
    DomainMutations,
    HelpMutations,
    PrivacyMutations,
    QueueMutations,
):
    """Everything that can be changed."""


@strawberry.type
class Subscription(
    LogSubscriptions,
):
    """Everything that can be followed."""


SCHEMA = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=StrawberryConfig(scalar_map={DateTime: DATE_TIME}),
)

if __name__ == "__main__":
    print(SCHEMA.as_str())
