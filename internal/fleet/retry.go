package fleet

import (
	"time"
)

// Class is what kind of failure a device reported. Frozen: stored as text.
type Class string

const (
	ClassNone    Class = ""        // none, or not said: the release's
	ClassImage   Class = "image"   // the image crashed, did not start or failed its self-test
	ClassFlash   Class = "flash"   // the device could not erase, program or read its flash or state
	ClassRefused Class = "refused" // keys, numbers or sizes: the device does not take it
	ClassOrdered Class = "ordered" // it went back because an operator or a rollout said so
)

// backoff is how failures of a class are tried again; those not named are not.
type backoff struct {
	tries  int // in all
	first  time.Duration
	factor int
}

var backoffs = map[Class]backoff{
	// Flash that failed once may work when it is warmer, or the supply stronger.
	ClassFlash: {tries: 3, first: time.Hour, factor: 4},
	// A key list that follows changes what a device takes.
	ClassRefused: {tries: 3, first: 24 * time.Hour, factor: 1},
}

// RetryAfter is how long after its failure a deployment is tried again; ok is false
// where it is not. scale 0 is 1.
func RetryAfter(c Class, tries int, scale float64) (wait time.Duration, ok bool) {
	b, ok := backoffs[c]
	if !ok || tries >= b.tries {
		return 0, false
	}
	wait = b.first
	for i := 1; i < tries; i++ {
		wait *= time.Duration(b.factor)
	}
	if scale > 0 {
		wait = time.Duration(float64(wait) * scale)
	}
	return wait, true
}
