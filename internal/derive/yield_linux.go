package derive

import "golang.org/x/sys/unix"

// yieldPriority is the nice value of the coder's thread: requests come first.
const yieldPriority = 10

// yieldToOthers lowers the priority of this thread alone. Where that is refused the work is
// done all the same.
func yieldToOthers() { _ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), yieldPriority) }
