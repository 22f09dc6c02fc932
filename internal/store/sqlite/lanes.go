package sqlite

import (
	"context"
	"errors"
	"sync"
)

// lanes are the goroutines in which readers' queries run, as many as there are
// connections. SQLite's code wants some 30 KiB of stack, and a goroutine that had it
// once keeps it for long: in the goroutines of ten thousand connections it came to
// 400 MB (bench/memory).
type lanes struct {
	calls   chan *call
	closing chan struct{}
	once    sync.Once
	left    sync.WaitGroup
}

// call is a function that runs in a lane.
type call struct {
	do       func()
	panicked any
	done     chan struct{} // has room for one
}

var calls = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

var errClosed = errors.New("the database is closed")

func newLanes(n int) *lanes {
	l := &lanes{calls: make(chan *call), closing: make(chan struct{})}
	for range n {
		l.left.Go(l.run)
	}
	return l
}

func (l *lanes) run() {
	for {
		select {
		case c := <-l.calls:
			c.run()
		case <-l.closing:
			return
		}
	}
}

func (c *call) run() {
	defer func() {
		c.panicked = recover()
		c.done <- struct{}{}
	}()
	c.do()
}

// do runs f in a lane, and returns when it has. A panic of f is the caller's. f must not call do.
func (l *lanes) do(ctx context.Context, f func()) error {
	c := calls.Get().(*call)
	c.do = f
	select {
	case l.calls <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.closing:
		return errClosed
	}
	<-c.done
	panicked := c.panicked
	c.do, c.panicked = nil, nil
	calls.Put(c)
	if panicked != nil {
		panic(panicked)
	}
	return nil
}

// close waits for what runs. It may be called again.
func (l *lanes) close() {
	l.once.Do(func() { close(l.closing) })
	l.left.Wait()
}
