"""A cluster of NATS servers with JetStream, which tests can kill, suspend, isolate and restart."""

import itertools
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import urllib3
from tests.ports import free_port
from tests.tools import tool
from tests.unreliable_network import UnreliableProxy

T = TypeVar("T")

READY_WITHIN_S: Final = 60.0
# The default of `max_file_store` depends on the disk, and can be less than the streams of the service reserve.
SETTINGS: Final = """
server_name: node{number}
listen: "127.0.0.1:{ports.client}"
http: "127.0.0.1:{ports.monitoring}"
jetstream {{
  store_dir: "{store}"
  max_file_store: 64GB
  sync_interval: "{sync_interval}"
}}
"""
CLUSTER: Final = """
cluster {{
  name: uplift
  listen: "127.0.0.1:{ports.routes}"
  routes: [{routes}]
  {advertised}
}}
"""


@dataclass(frozen=True)
class Ports:
    """The ports of a node."""

    client: int
    monitoring: int
    routes: int


class NatsCluster:
    """NATS servers on free ports of 127.0.0.1, with their files in a directory. Nodes have the numbers 0, 1, …"""

    def __init__(
        self,
        folder: Path,
        nodes: int = 3,
        *,
        sync_interval: str = "2m",
        scheme: str = "nats",
        environ: Mapping[str, str] | None = None,
        can_isolate: bool = False,
    ) -> None:
        """Prepare the nodes. `start` starts them.

        `sync_interval` determines when JetStream calls fsync; `always` means after each message. Without fsync, a crash
        of the machine loses messages, but a kill of the process does not. A node's configuration, `nats.conf` in its
        directory, can use the variables of `environ`.

        With `can_isolate`, the nodes reach each other through a network that can fail.
        """
        self._program = tool("nats-server")
        self.folder = folder
        self._ports = [Ports(free_port(), free_port(), free_port()) for _ in range(nodes)]
        self._environ = environ or {}
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * nodes
        self._suspended: set[int] = set()
        self._isolated: set[int] = set()
        self._links: dict[tuple[int, int], UnreliableProxy] = {}
        """The networks from one node to another."""
        self._http = urllib3.PoolManager(retries=False, timeout=1)
        self.urls = [f"{scheme}://127.0.0.1:{ports.client}" for ports in self._ports]
        """The URL of each node."""
        if can_isolate:
            for pair in itertools.permutations(self.nodes, 2):
                address = ("127.0.0.1", self._ports[pair[1]].routes)
                self._links[pair] = UnreliableProxy(partial(socket.create_connection, address))
        for number, ports in enumerate(self._ports):
            node = self.node_folder(number)
            (node / "jetstream").mkdir(parents=True)
            text = SETTINGS.format(number=number, ports=ports, store=node / "jetstream", sync_interval=sync_interval)
            if nodes > 1:
                others = [each for each in self.nodes if each != number]
                routes = ", ".join(f'"nats://127.0.0.1:{self._route_port(number, other)}"' for other in others)
                # Advertise an unused port: nodes would connect directly to the real ports if they learned them.
                advertised = f'advertise: "127.0.0.1:{free_port()}"' if can_isolate else ""
                text += CLUSTER.format(ports=ports, routes=routes, advertised=advertised)
            (node / "nats.conf").write_text(text)

    @property
    def url(self) -> str:
        """The URLs of all nodes, as the value of the setting UPLIFT_NATS_URL."""
        return ",".join(self.urls)

    @property
    def nodes(self) -> range:
        """The numbers of all nodes."""
        return range(len(self._processes))

    @property
    def live_nodes(self) -> list[int]:
        """The nodes that are running, and neither suspended nor isolated."""
        away = self._suspended | self._isolated
        return [node for node, process in enumerate(self._processes) if process and node not in away]

    def node_folder(self, node: int) -> Path:
        """Return the directory of a node: its configuration, log and messages."""
        return self.folder / f"node{node}"

    def ports(self, node: int) -> Ports:
        """Return the ports of a node."""
        return self._ports[node]

    def pid(self, node: int) -> int:
        """Return the process ID of a node."""
        return self._running(node).pid

    def start(self) -> "NatsCluster":
        """Start all nodes that are not running, and wait until they are ready."""
        for node, process in enumerate(self._processes):
            if process is None:
                self._launch(node)
        self.wait_until_ready()
        return self

    def restart(self, node: int) -> None:
        """Start a node on its old data. If it is running, stop it first. Do not wait until it is ready."""
        self.stop(node)
        self._launch(node)

    def kill(self, node: int) -> None:
        """Send `kill -9`."""
        process = self._running(node)
        process.kill()
        process.wait()
        self._processes[node] = None
        self._suspended.discard(node)

    def stop(self, node: int | None = None) -> None:
        """Stop a node, or all nodes, with SIGTERM."""
        stopped = [each for each in (self.nodes if node is None else [node]) if self._processes[each] is not None]
        for each in stopped:
            self.resume(each)
            self._running(each).terminate()
        for each in stopped:
            self._running(each).wait(30)
            self._processes[each] = None

    def pause(self, node: int) -> None:
        """Suspend a node. Its connections stay open."""
        self._running(node).send_signal(signal.SIGSTOP)
        self._suspended.add(node)

    def resume(self, node: int) -> None:
        """Continue a suspended node."""
        if node in self._suspended:
            self._running(node).send_signal(signal.SIGCONT)
            self._suspended.discard(node)

    def isolate(self, node: int) -> None:
        """Separate a node from the other nodes, but not from its clients."""
        assert self._links, "the cluster needs can_isolate"
        self._isolated.add(node)
        for pair, link in self._links.items():
            if node in pair:
                link.hold()

    def rejoin(self) -> None:
        """Connect all isolated nodes with the others."""
        self._isolated.clear()
        for link in self._links.values():
            link.restore()

    def wait_until_ready(self) -> None:
        """Wait until every live node has its data and knows the leader of the cluster."""
        for node in self.live_nodes:
            self._wait(lambda node=node: self._is_ready(node), f"node {node} is ready")  # type: ignore[misc]

    def leader(self, stream: str) -> int:
        """Return the node that leads a stream, once there is one among the live nodes."""

        def only_leader() -> list[int]:
            # Followers name the old leader until they notice that it is gone, and an old leader names itself.
            leaders = [node for node in self.live_nodes if self._leads(node, stream)]
            return leaders if len(leaders) == 1 else []

        return self._wait(only_leader, f"{stream} has a leader")[0]

    def only_node(self, stream: str) -> int:
        """Return the node that has a stream, once no other live node has it."""

        def nodes() -> list[int]:
            found = [node for node in self.live_nodes if self._stream(node, stream) is not None]
            return found if len(found) == 1 else []

        return self._wait(nodes, f"one node has {stream}")[0]

    def wait_until_leaderless(self, stream: str) -> None:
        """Wait until no live node knows a leader of a stream, because too few nodes are left."""

        def has_no_leader() -> bool:
            states = [self._stream(node, stream) for node in self.live_nodes]
            return all(state is not None and not state["cluster"].get("leader") for state in states)

        self._wait(has_no_leader, f"{stream} has no leader")

    def wait_until_current(self, stream: str) -> None:
        """Wait until all live nodes have all messages of a stream, so that the next fault is the only one."""

        def is_current() -> bool:
            found = self._stream(self.leader(stream), stream)
            replicas = found["cluster"].get("replicas", []) if found else []
            return len(replicas) >= len(self.live_nodes) - 1 and all(each["current"] for each in replicas)

        self._wait(is_current, f"all nodes have the messages of {stream}")

    def messages(self, stream: str) -> int:
        """Return the number of messages in a stream, according to its leader."""
        found = self._stream(self.leader(stream), stream)
        return int(found["state"]["messages"]) if found else 0

    def close(self) -> None:
        """Kill all nodes."""
        for node, process in enumerate(self._processes):
            if process is not None:
                self.kill(node)
        for link in self._links.values():
            link.close()
        self._http.clear()

    def monitoring(self, node: int, path: str) -> dict[str, Any]:
        """Return a response of the monitoring port, or an empty object if the node does not respond with 200."""
        try:
            response = self._http.request("GET", f"http://127.0.0.1:{self._ports[node].monitoring}{path}")
        except urllib3.exceptions.HTTPError:
            return {}
        found: dict[str, Any] = json.loads(response.data) if response.status == 200 else {}
        return found

    def _route_port(self, node: int, other: int) -> int:
        """Return the port at which a node reaches another one."""
        link = self._links.get((node, other))
        return self._ports[other].routes if link is None else link.port

    def _running(self, node: int) -> subprocess.Popen[bytes]:
        process = self._processes[node]
        assert process is not None, f"node {node} is not running"
        return process

    def _launch(self, node: int) -> None:
        folder = self.node_folder(node)
        with (folder / "log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                [self._program, "--config", folder / "nats.conf"],
                env={**os.environ, **self._environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _is_ready(self, node: int) -> bool:
        assert self._running(node).poll() is None, f"node {node} ended\n{self._logs()}"
        if not self.monitoring(node, "/healthz"):
            return False
        return len(self.nodes) == 1 or bool(self.monitoring(node, "/jsz").get("meta_cluster", {}).get("leader"))

    def _leads(self, node: int, stream: str) -> bool:
        found = self._stream(node, stream)
        return found is not None and found.get("cluster", {}).get("leader", f"node{node}") == f"node{node}"

    def _stream(self, node: int, stream: str) -> dict[str, Any] | None:
        """Return the state of a stream on a node."""
        accounts = self.monitoring(node, "/jsz?streams=true").get("account_details", [])
        streams = [each for account in accounts for each in account.get("stream_detail", [])]
        return next((each for each in streams if each["name"] == stream), None)

    def _wait(self, condition: Callable[[], T], what: str) -> T:
        end = time.monotonic() + READY_WITHIN_S
        while not (found := condition()):
            assert time.monotonic() < end, f"not within {READY_WITHIN_S:g} s: {what}\n{self._logs()}"
            time.sleep(0.02)
        return found

    def _logs(self) -> str:
        ends = []
        for node in self.nodes:
            log = self.node_folder(node) / "log"
            ends += log.read_text("utf-8", "replace").splitlines()[-10:] if log.exists() else []
        return "\n".join(ends)
