package pgtest

import (
	"os/exec"
	"runtime"
)

// launch starts a server. The thread that does lives as long as the server: Linux ends the
// server with it, so that a test that is killed leaves none behind.
func launch(cmd *exec.Cmd) (*process, error) {
	as(cmd)
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.said, &p.said
	cmd.Dir = "/"
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
		close(p.done)
	}()
	return p, <-started
}
