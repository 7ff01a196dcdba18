// Tells the service manager how this process fares: sd_notify(3) without its library.
//
//   READY=1      the loop serves
//   STOPPING=1   it drains
//   WATCHDOG=1   it is alive; due when ExpectsWatchdog(), more often than twice per WatchdogSec=
//
// One datagram to the socket that NOTIFY_SOCKET names: a path, or, behind '@', a name in Linux's
// abstract namespace. Without NOTIFY_SOCKET nobody listens, and nothing is sent. Errors are not
// reported: a manager that misses READY=1 says so itself. Never blocks.
#ifndef HANDLER_BASE_NOTIFY_H_
#define HANDLER_BASE_NOTIFY_H_

#include <string_view>

namespace keys {

// `state` is one or more lines NAME=VALUE.
void NotifyServiceManager(std::string_view state);

// Whether the manager restarts this process unless it hears WATCHDOG=1 (sd_watchdog_enabled(3)).
bool ExpectsWatchdog();

}  // namespace keys

#endif  // HANDLER_BASE_NOTIFY_H_
