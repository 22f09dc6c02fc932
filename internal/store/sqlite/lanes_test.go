package sqlite

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// As many calls run at once as there are lanes; who waits can give up; a panic is the
// caller's and costs no lane; a closed one refuses.
func TestLanes(t *testing.T) {
	l := newLanes(2)
	inside, free := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if err := l.do(ctx, func() { inside <- struct{}{}; <-free }); err != nil {
				t.Error(err)
			}
		})
		<-inside
	}
	ended, end := context.WithCancel(ctx)
	end()
	if err := l.do(ended, func() { t.Error("a third ran") }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(free)
	wg.Wait()
	for range 5 {
		func() {
			defer func() {
				if recover() != "boom" {
					t.Error("the panic is lost")
				}
			}()
			_ = l.do(ctx, func() { panic("boom") })
			t.Error("it went on")
		}()
	}
	var ran atomic.Int64
	for range 100 {
		wg.Go(func() {
			if err := l.do(ctx, func() { ran.Add(1) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	l.close()
	l.close()
	if err := l.do(ctx, func() { t.Error("ran") }); !errors.Is(err, errClosed) || ran.Load() != 100 {
		t.Errorf("%v, %d ran", err, ran.Load())
	}
}
