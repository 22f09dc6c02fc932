package qemu

import (
	"context"
	"errors"
	"sync"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/sim/labserver"
)

// Lab is a chip on a line to a server in memory.
type Lab struct {
	Chip *Chip
	Line *Line

	mu     sync.Mutex // over Server and Events: the line answers in a goroutine of its own
	Server labserver.Server
	Events []device.Event // of all starts
	Starts int
	// Flash is the board's, where the line's other end keeps it; nil: it has its own. When
	// that loses its power, so does the board, and Run returns nil.
	Flash *HostFlash
	// OnReset sees the chip between a reset and the start after it; nil: nobody does.
	OnReset func(*Chip)
	// OnEnd sees it, RAM included, at the end of each start; nil: nobody does.
	OnEnd func(*Chip)

	stop   func(*Lab) bool
	cancel context.CancelFunc
}

// NewLab connects a chip to a server.
func NewLab(chip *Chip, server labserver.Server) *Lab {
	l := &Lab{Chip: chip, Server: server}
	l.Line = &Line{Do: l.do, Say: l.say, Done: l.done}
	return l
}

// NewHostLab connects a chip to a server and to its flash.
func NewHostLab(chip *Chip, flash *HostFlash, server labserver.Server) *Lab {
	l := NewLab(chip, server)
	l.Flash, l.Line.Host, l.Line.Gone = flash, l.host, l.gone
	return l
}

func (l *Lab) host(op byte, p []byte) ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Flash.Call(op, p)
}

func (l *Lab) gone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.Flash.NOR.Dead() {
		return false
	}
	l.cancel()
	return true
}

func (l *Lab) do(r device.Request) *labserver.Answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Server.Do(r)
}

func (l *Lab) say(e device.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Events = append(l.Events, e)
}

func (l *Lab) done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stop != nil && l.stop(l) {
		l.cancel()
	}
}

// Heard says whether an event came, in any start.
func (l *Lab) Heard(k device.EventKind) bool {
	for _, e := range l.Events {
		if e.Kind == k {
			return true
		}
	}
	return false
}

// Run powers the chip on and lets it run, over as many resets as come, until stop says
// so (nil) after a call on its line, or ctx ends. The power is cut then.
func (l *Lab) Run(ctx context.Context, stop func(*Lab) bool) error {
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	l.stop, l.cancel = stop, cancel
	l.mu.Unlock()
	for {
		err := l.start(run)
		if errors.Is(err, ErrReset) && run.Err() == nil {
			if l.OnReset != nil {
				l.OnReset(l.Chip)
			}
			continue
		}
		l.Chip.PowerCut()
		if run.Err() != nil && ctx.Err() == nil {
			return nil
		}
		return err
	}
}

// start is one start of the chip.
func (l *Lab) start(ctx context.Context) error {
	l.Starts++
	r, err := l.Chip.Start(ctx, false)
	if err != nil {
		return err
	}
	defer r.Kill()
	served := make(chan struct{})
	go func() {
		defer close(served)
		l.Line.Serve(r.Serial)
	}()
	end := r.Wait(ctx)
	if !errors.Is(end, ErrDied) {
		if err := r.Off(); err != nil {
			return err
		}
		if l.OnEnd != nil {
			l.OnEnd(l.Chip)
		}
	}
	r.Kill()
	<-served // nothing of this start reaches the server any more
	return end
}
