"""The process in its machine: listening sockets, limits, privileges, systemd, signals.

Owns what the server asks of the operating system once, around its life. Never touches a connection
or a task of the server. Invariant: what may need root (`listen`, `raise_open_files`) is done before
`drop_privileges`, and nothing here needs root afterwards.

All of it takes plain values, so that a test needs no configuration. Where only the operator can
help it raises ConfigError with the key to look at.
"""

import errno
import grp
import logging
import os
import pwd
import resource
import signal
import socket

import trio

from ccstore.errors import ConfigError

__all__ = [
    "drop_privileges",
    "feed_watchdog",
    "keep_freed_memory",
    "listen",
    "notify",
    "raise_open_files",
    "stop_on_signal",
]

log = logging.getLogger("ccstore.process")

MIB = 1024 * 1024

BACKLOG = 1024
"""Connections that wait to be accepted: the collectors of a site all call at the full minute."""

USER_TIMEOUT = 20.0
"""Seconds a client may leave bytes of ours unread or unacknowledged before the kernel gives it up."""


def listen(host: str, port: int, *, user_timeout: float = USER_TIMEOUT) -> list[socket.socket]:
    """Open a listening TCP socket for every address of `host`, all with one port.

    No host means every address of the machine; port 0 a free port. Accepted connections inherit
    `user_timeout`, in seconds. Raises ConfigError if there is nothing to listen on.
    """
    where = f"main.addr: cannot listen on {host or '*'}:{port}"
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, (address, *_) in dict.fromkeys(found):
            try:
                sock = socket.create_server((address, port), family=family, backlog=BACKLOG)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error  # a machine without IPv6, say; its other address will do
                continue
            sockets.append(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * user_timeout))
            port = sock.getsockname()[1]
        if missing is not None and not sockets:
            raise missing
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise ConfigError(f"{where}: {os.strerror(error.errno) if error.errno else error}") from error
    return sockets


def raise_open_files() -> int:
    """Allow as many open files as the hard limit does, and return how many those are.

    The usual soft limit of 1 024 is for programs that use select(); a site has more collectors.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def keep_freed_memory() -> None:
    """Let the C library reuse large buffers instead of giving each back to the kernel.

    glibc maps buffers above 128 KiB afresh, and the kernel clears them page by page, until a
    larger one is freed: that moves its limit up to the size of this one (M_MMAP_THRESHOLD in
    mallopt(3)). So this makes one, which costs nothing as nobody writes to it, and frees it. It
    saves half the CPU time of receiving bodies, and much of that of numpy's temporary arrays.
    """
    bytearray(31 * MIB)  # just below the 32 MiB up to which the limit moves


def drop_privileges(user: str, group: str) -> None:
    """Become `user` and `group` for good; "" leaves either as it is, or takes the user's group.

    Raises ConfigError if one of them does not exist, or root would be needed to become them.
    """
    if not user and not group:
        return
    try:
        account = pwd.getpwnam(user) if user else None
    except KeyError:
        raise ConfigError(f"main.user: no such user (got {user!r})") from None
    try:
        gid = grp.getgrnam(group).gr_gid if group else account.pw_gid if account else os.getgid()
    except KeyError:
        raise ConfigError(f"main.group: no such group (got {group!r})") from None
    uid = account.pw_uid if account else os.getuid()
    if (uid, gid) == (os.getuid(), os.getgid()):
        return
    try:
        # The order matters: once the user is changed, the groups cannot be.
        os.initgroups(user, gid) if user else os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
    except PermissionError as error:
        raise ConfigError(
            f"main.user: cannot become user {user!r}, group {group!r}: not started as root"
        ) from error


def notify(*assignments: str) -> bool:
    """Tell systemd, such as ``READY=1`` or ``STATUS=recovering``; return whether it was told.

    Without NOTIFY_SOCKET in the environment nobody asked. A message that cannot be sent is
    logged: nothing of ours depends on it.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # an abstract socket, which has a name but no file
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        try:
            sock.sendto("\n".join(assignments).encode(), address)
        except OSError as error:
            fields = {"socket": os.environ["NOTIFY_SOCKET"], "error": error}
            log.warning("cannot notify systemd at %(socket)r: %(error)s", fields)
            return False
    return True


async def feed_watchdog() -> None:
    """Tell systemd twice in each of its intervals that the event loop turns; for ever, if it asks."""
    interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    meant = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    while interval and meant == str(os.getpid()):
        notify("WATCHDOG=1")
        await trio.sleep(interval / 2)


async def stop_on_signal() -> None:
    """Wait for SIGTERM or SIGINT.

    Afterwards signals do what they did before: a second Ctrl-C raises KeyboardInterrupt in the
    main task, which cancels everything, and a second SIGTERM ends the process.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("stopping on %(signal)s", {"signal": signal.Signals(number).name})
            return
