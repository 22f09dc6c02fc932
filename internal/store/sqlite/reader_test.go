package sqlite

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Many more readers than connections, all with statements that nobody prepared
// before: none waits for ever.
func TestReadersDoNotStarve(t *testing.T) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dir := t.TempDir()
	for range 5 {
		s := openAt(t, dir)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				<-start
				var err error
				switch i % 5 {
				case 0:
					_, err = s.ListDevices(ctx)
				case 1:
					_, _, err = s.Snapshot(ctx)
				case 2:
					_, _, err = s.Events(ctx, fmt.Sprint(i), 1)
				case 3:
					_, err = s.ListDeployments(ctx)
				case 4:
					if _, err = s.Device(ctx, "nobody"); fleet.CodeOf(err) == fleet.CodeNotFound {
						err = nil
					}
				}
				if err != nil {
					t.Error(err)
				}
			}()
		}
		close(start)
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A view sees one state, however long it takes and whatever is written meanwhile.
func TestViewSeesOneState(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	count := func(v *view) (n int) {
		if err := v.Row("SELECT count(*) FROM events").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	err := s.read(ctx, "test", func(v *view) error {
		before := count(v)
		if err := s.w.Do(ctx, func(t *tx) error { return insert(t, "meanwhile") }); err != nil {
			return err
		}
		if after := count(v); before != after {
			t.Errorf("%d, then %d", before, after)
		}
		return nil
	})
	if err != nil || len(details(t, s)) != 1 {
		t.Errorf("%v", err)
	}
}
