package fleet

import "math"

// Confidence of a bound: the chance that a release whose true rate is at the
// threshold is taken for a worse one, at one look, is at most 1 - Confidence.
const Confidence = 0.95

// LowerBound is the exact one-sided lower bound of Clopper and Pearson (1934) for a
// rate of which bad of n were seen: the smallest rate at which that many or more
// have a chance of at least 1 - Confidence. Exact, because the first phases are a
// handful of devices: there the bound of Wilson, an approximation, reads one of
// one as 27 %, this one as 5 %.
func LowerBound(bad, n int) float64 {
	if bad <= 0 || n <= 0 {
		return 0
	}
	if bad > n {
		bad = n
	}
	low, high := 0.0, 1.0
	for range 52 { // bits of a float64's fraction
		mid := (low + high) / 2
		if tail(bad, n, mid) < 1-Confidence {
			low = mid
		} else {
			high = mid
		}
	}
	return low
}

// Above says whether the lower bound of the rate is above limit: one sum instead of
// the bound itself, and the same answer.
func Above(bad, n int, limit float64) bool {
	return bad > 0 && n > 0 && limit < 1 && tail(min(bad, n), n, limit) < 1-Confidence
}

// tail is the chance of bad or more of n at rate p: the terms from bad on, or one
// minus those before, whichever are fewer to add. Each term follows from the one
// before; the first by logarithms, which do not underflow.
func tail(bad, n int, p float64) float64 {
	switch {
	case bad <= 0, p >= 1:
		return 1
	case p <= 0:
		return 0
	}
	ratio := p / (1 - p)
	sum := func(from, to int) float64 {
		term := math.Exp(logChoose(n, from) + float64(from)*math.Log(p) + float64(n-from)*math.Log1p(-p))
		total := term
		for k := from; k < to; k++ {
			term *= float64(n-k) / float64(k+1) * ratio
			total += term
			if term < total*1e-17 && float64(k) > float64(n)*p {
				break // past the top the rest adds nothing
			}
		}
		return total
	}
	if float64(bad) > float64(n)*p {
		return min(sum(bad, n), 1)
	}
	return max(1-sumDown(bad-1, n, p), 0)
}

// sumDown is the chance of k or fewer, added from k down.
func sumDown(k, n int, p float64) float64 {
	term := math.Exp(logChoose(n, k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
	total := term
	for ; k > 0; k-- {
		term *= float64(k) / float64(n-k+1) * (1 - p) / p
		total += term
		if term < total*1e-17 {
			break
		}
	}
	return min(total, 1)
}

func logChoose(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}
