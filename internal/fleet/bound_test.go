package fleet

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// The rates at which the binomial tail is 1/20, by bisection over exact fractions.
func TestLowerBound(t *testing.T) {
	for _, c := range []struct {
		bad, n int
		want   float64
	}{
		{0, 10, 0},
		{1, 1, 0.05},
		{1, 3, 0.0169524275}, // one failure among three is no 33 %
		{2, 2, math.Sqrt(0.05)},
		{3, 3, math.Cbrt(0.05)},
		{5, 10, 0.2224411010},
		{10, 100, 0.0552632377},
		{60, 200, 0.2466965533},
	} {
		if got := LowerBound(c.bad, c.n); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%d of %d: %.10f, not %.10f", c.bad, c.n, got, c.want)
		}
	}
	for _, c := range []struct {
		bad, n int
		limit  float64
		above  bool
	}{
		{1, 1, 0.2, false}, {1, 3, 0.2, false}, {2, 2, 0.2, true}, {2, 3, 0.2, false}, {3, 3, 0.2, true}, {0, 1000, 0, false}, {1, 2, 0, true},
		{30, 100, 0.2, true}, {24, 100, 0.2, false}, {30_000, 100_000, 0.29, true}, {29_100, 100_000, 0.29, false},
	} {
		if got := Above(c.bad, c.n, c.limit); got != c.above {
			t.Errorf("%d of %d above %g: %v", c.bad, c.n, c.limit, got)
		}
	}
}

// The quick answer is the bound's, more failures never make it lower, and more
// successes never higher.
func TestBoundProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 20_000).Draw(t, "n")
		bad := rapid.IntRange(0, n).Draw(t, "bad")
		limit := rapid.Float64Range(0.001, 0.999).Draw(t, "limit")
		b := LowerBound(bad, n)
		if b < 0 || b > float64(bad)/float64(n) {
			t.Fatalf("bound %g of %d in %d", b, bad, n)
		}
		if math.Abs(b-limit) > 1e-9 && Above(bad, n, limit) != (b > limit) {
			t.Fatalf("%d of %d: bound %g, above %g: %v", bad, n, b, limit, Above(bad, n, limit))
		}
		if bad < n && LowerBound(bad+1, n) < b || LowerBound(bad, n+1) > b+1e-12 {
			t.Fatalf("%d of %d: not monotone", bad, n)
		}
	})
}

// How often a release whose true rate is the threshold is stopped by one look: at
// most 1 - Confidence, counted exactly.
func TestBoundIsHonest(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 10, 50, 400} {
		const limit = 0.2
		stopped := 0.0
		for bad := 0; bad <= n; bad++ {
			if Above(bad, n, limit) {
				stopped += tail(bad, n, limit) - tail(bad+1, n, limit)
			}
		}
		if stopped > 1-Confidence+1e-9 || n >= 10 && stopped == 0 {
			t.Errorf("of %d: %g", n, stopped)
		}
	}
}
