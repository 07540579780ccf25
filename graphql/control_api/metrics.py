"""What `/metrics` answers: numbers in the text format of Prometheus, under the names that docs/METRICS.md explains.

The engine's come from its socket (`appliance.run.measurements`), this process's from its own counters. Names follow the
conventions of Prometheus: seconds and bytes, `_total` for what only grows. Without an engine there are no numbers of
mail at all; a zero would say that there was none.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from appliance.version import version
from control_api.watch import Traffic
from smtp.histogram import Histogram

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class State:
    """What is measured when it is asked for."""

    engine: Mapping[str, Any] | None
    """What the engine has told; None where it does not answer."""
    disk_free: int | None
    """Octets that are free where the data directory is; None where that can't be found out."""
    disk_size: int | None
    log_written: int
    """Lines of the log of HTTP."""
    log_lost: int


Measured = Callable[[], Awaitable[State]]
"""Measures. It has a limit of its own and does not raise."""


class _Families(Collector):
    """Some families of metrics, made already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> list[Metric]:
        """See `Collector`."""
        return self._families


def text(state: State, traffic: Traffic) -> bytes:
    """The whole answer."""
    # One for each answer: what it shows is what was found now.
    registry = CollectorRegistry()
    registry.register(_Families([*_own(state), *_of_traffic(traffic), *_of_engine(state.engine)]))
    return generate_latest(registry)


def _own(state: State) -> Iterator[Metric]:
    yield InfoMetricFamily("onward_build", "Which Onward this is.", {"version": version()})
    engine_up = state.engine is not None
    yield GaugeMetricFamily("onward_engine_up", "Whether the engine answers.", engine_up)
    if state.disk_free is not None:
        yield GaugeMetricFamily("onward_disk_free_bytes", "Room on the disk of the data directory.", state.disk_free)
    if state.disk_size is not None:
        yield GaugeMetricFamily("onward_disk_size_bytes", "Size of the disk of the data directory.", state.disk_size)
    yield _count("onward_http_log_lines_written", "Lines of the log of HTTP that are stored.", state.log_written)
    yield _count("onward_http_log_lines_lost", "Lines of the log of HTTP that found no room.", state.log_lost)


def _of_traffic(traffic: Traffic) -> Iterator[Metric]:
    websockets = "Websockets that are open."
    yield GaugeMetricFamily("onward_http_websockets_open", websockets, traffic.websockets_open)
    yield _counts(
        "onward_http_requests",
        "Requests that were answered.",
        ("path", "method", "status"),
        [((path, method, str(status)), count) for (path, method, status), count in traffic.requests.items()],
    )
    yield _histograms("onward_http_request_seconds", "How long an answer took.", "path", traffic.request_s)
    yield _counts(
        "onward_api_operations",
        "Operations of the API, by the code of their first error.",
        ("operation", "kind", "code"),
        traffic.operations.items(),
    )
    took = "How long an operation took, but for subscriptions."
    yield _histograms("onward_api_operation_seconds", took, "operation", traffic.operation_s)


def _of_engine(engine: Mapping[str, Any] | None) -> Iterator[Metric]:
    if engine is None:
        return
    yield GaugeMetricFamily("onward_engine_healthy", "Whether mail is taken and sent.", engine["healthy"])
    started = "When the engine began, in seconds since the epoch."
    yield GaugeMetricFamily("onward_engine_start_time_seconds", started, engine["startedAt"] / 1000)
    sessions = engine["sessions"]
    yield GaugeMetricFamily("onward_smtp_sessions_open", "SMTP sessions that are open.", sessions["open"])
    yield _count("onward_smtp_sessions_accepted", "Connections of SMTP clients.", sessions["accepted"])
    yield _count("onward_smtp_sessions_turned_away", "Of these, those without a session.", sessions["turnedAway"])
    yield _count("onward_smtp_sessions_given_up", "Sessions that were ended to make room.", sessions["givenUp"])
    yield _count("onward_smtp_tls_handshakes", "Handshakes behind STARTTLS.", engine["handshakes"])
    yield _count("onward_smtp_tls_handshakes_failed", "Of these, those that failed.", engine["handshakesFailed"])
    replies = [((f"{code[0]}xx", code), count) for code, count in engine["replies"].items()]
    yield _counts("onward_smtp_replies", "Replies to SMTP clients.", ("class", "code"), replies)
    yield _count("onward_messages_accepted", "Messages that were answered with 250.", engine["accepted"])
    took = "From the end of a message to its 250."
    yield _histogram("onward_message_acceptance_seconds", took, engine["untilAccepted"])
    yield _count("onward_recipients_refused", "Recipients of hosted domains that were refused.", engine["refused"])
    attempts = [((outcome,), count) for outcome, count in engine["attempts"].items()]
    yield _counts("onward_delivery_attempts", "Attempts at a delivery, by outcome.", ("outcome",), attempts)
    yield _count("onward_deliveries_delivered", "Deliveries that are done.", engine["delivered"])
    yield _count("onward_deliveries_deferred", "How often a delivery stayed for another attempt.", engine["deferred"])
    yield _count("onward_deliveries_bounced", "Deliveries that were given up.", engine["bounced"])
    took = "From a message's 250 to that of the next hop."
    yield _histogram("onward_delivery_delay_seconds", took, engine["untilDelivered"])
    units = "What was written in one transaction of the spool, in units that were waited for."
    yield _histogram("onward_spool_group_units", units, engine["groupUnits"])
    if "queue" in engine:
        yield from _of_queue(engine["queue"])


def _of_queue(queue: Mapping[str, Any]) -> Iterator[Metric]:
    by_state = GaugeMetricFamily("onward_queue_deliveries", "Deliveries that are still to be done.", labels=["state"])
    for state in ("WAITING", "UNDER_WAY", "HELD"):
        by_state.add_metric([state.lower()], queue["states"].get(state, 0))
    yield by_state
    older = GaugeMetricFamily(
        "onward_queue_older_deliveries", "Of these, those that are older than so many seconds.", labels=["seconds"]
    )
    for seconds, count in queue["older"]:
        older.add_metric([str(seconds)], count)
    yield older
    yield GaugeMetricFamily("onward_queue_oldest_seconds", "Age of the oldest of these.", queue["oldest"])


# ------------------------------------------------------------------ families


def _count(name: str, what: str, value: int) -> Metric:
    return CounterMetricFamily(name, what, value)


def _counts(name: str, what: str, labels: Labels, values: Iterable[tuple[Labels, int]]) -> Metric:
    family = CounterMetricFamily(name, what, labels=labels)
    for named, value in sorted(values):
        family.add_metric(named, value)
    return family


def _histogram(name: str, what: str, told: Mapping[str, Any]) -> Metric:
    family = HistogramMetricFamily(name, what)
    family.add_metric([], _buckets(told["bounds"], told["counts"]), told["sum"])
    return family


def _histograms(name: str, what: str, label: str, values: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, what, labels=[label])
    for named, histogram in sorted(values.items()):
        family.add_metric([named], _buckets(histogram.bounds, histogram.counts), histogram.sum)
    return family


def _buckets(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """In Prometheus each has what is in those below, too."""
    found: list[tuple[str, float]] = []
    below = 0
    for bound, count in zip([*(str(float(bound)) for bound in bounds), "+Inf"], counts, strict=True):
        below += count
        found.append((bound, below))
    return found
