package pgtest

import "syscall"

// endWithTest has the system end the server when the test's process is gone.
func endWithTest(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGQUIT }
