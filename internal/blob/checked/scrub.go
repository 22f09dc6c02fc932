package checked

import (
	"context"
	"errors"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

const (
	// DefaultScrubRate is how fast all blobs are read again and again, in bytes/s: a gigabyte in
	// a quarter of an hour, at a hundredth of what a common disk can.
	DefaultScrubRate = 1 << 20
	// firstRate is how fast they are read once after a start, what devices want first: they wait
	// for what they ask for before its turn.
	firstRate = 32 << 20 // bytes/s
	// between is from the beginning of a pass to that of the next one at least: there is nothing
	// to be found by reading a small store all day.
	between = 24 * time.Hour
)

// Scrub reads all blobs, and again and again, until ctx ends: at first those that
// wanted answers, in its order, then all others; later passes at rate bytes/s. 0:
// no later passes. Its error is ctx's; what can't be read is logged and tried in
// the next pass. Files that prove by themselves what they open are read at rate from
// the first pass on: there it is the network, and a bill.
func (s *Store) Scrub(ctx context.Context, rate int64, wanted func(context.Context) ([]fleet.Digest, error)) error {
	if s.proven && rate == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.scrub(ctx, rate, !s.proven, wanted)
}

// scrub reads the first time at firstRate, if fast is said.
func (v *verdicts) scrub(ctx context.Context, rate int64, fast bool, wanted func(context.Context) ([]fleet.Digest, error)) error {
	for first := fast; ; first = false {
		begun := time.Now()
		p := pass{v: v, rate: rate}
		if first {
			p.rate = firstRate
		}
		err := p.run(ctx, wanted)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		took := time.Since(begun)
		if err != nil {
			v.log.ErrorContext(ctx, "the stored images and streams could not all be checked", "error", err, "hint", "it is tried again; 'runnel fsck' says more while the server is stopped")
		} else {
			v.log.InfoContext(ctx, "all stored images and streams were checked", "files", p.files, "bytes", p.bytes, "damaged", p.damaged, "took", took.Round(time.Millisecond).String())
		}
		if rate == 0 {
			<-ctx.Done()
			return ctx.Err()
		}
		if err := wait(ctx, between-took); err != nil {
			return err
		}
	}
}

// pass is one look at all blobs.
type pass struct {
	v    *verdicts
	rate int64

	files, damaged int
	bytes          int64
	begun          time.Time
}

func (p *pass) run(ctx context.Context, wanted func(context.Context) ([]fleet.Digest, error)) error {
	p.begun = time.Now()
	first, err := wanted(ctx)
	if err != nil {
		return err
	}
	all, err := p.v.files.List(ctx)
	if err != nil {
		return err
	}
	done := make(map[fleet.Digest]bool, len(all))
	for _, d := range append(first, all...) {
		if done[d] {
			continue
		}
		done[d] = true
		_, err := p.v.check(ctx, d, func(n int) error { return p.pace(ctx, n) })
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case fleet.CodeOf(err) == fleet.CodeNotFound:
			continue // deleted meanwhile; what a release misses is another's to tell
		case isDamage(err):
			p.damaged++
		case err != nil:
			return err
		}
		p.files++
	}
	return nil
}

// pace waits until so many bytes may have been read.
func (p *pass) pace(ctx context.Context, n int) error {
	p.bytes += int64(n)
	if p.rate <= 0 {
		return errors.New("a scrub without a rate")
	}
	due := time.Duration(float64(p.bytes) / float64(p.rate) * float64(time.Second))
	return wait(ctx, due-time.Since(p.begun))
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
