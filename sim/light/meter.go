package light

import (
	"maps"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/runnel-fota/runnel/core/device"
)

// Meter counts what a fleet does. Safe for concurrent use.
type Meter struct {
	Polls, Unanswered                            atomic.Int64 // polls answered with status 200; requests of all kinds without an answer, or with another status
	Offers, Confirmed, Failed, RolledBack        atomic.Int64 // Failed: a deployment ended in one of Reasons; RolledBack: an older image starts again
	Unproven                                     atomic.Int64 // trials that ended without contact
	Reports, Resets, Silent, Records, ImageBytes atomic.Int64 // Silent: boards that fell silent; ImageBytes of records that reached flash
	Latency                                      Latency      // of polls that were answered

	mu       sync.Mutex
	reasons  map[string]int
	statuses map[int]int
}

// Statuses are those of requests that are Unanswered, and how often each came; 0: there
// was no answer, or it broke off.
func (m *Meter) Statuses() map[int]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.statuses)
}

func (m *Meter) unanswered(status int) {
	m.Unanswered.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.statuses == nil {
		m.statuses = map[int]int{}
	}
	m.statuses[status]++
}

// Reasons are the reasons of failures, and how often each came.
func (m *Meter) Reasons() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.reasons)
}

func (m *Meter) failed(r device.Reason) {
	if r == device.ReasonOrdered || r == device.ReasonCancelled {
		return // somebody's will
	}
	m.Failed.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reasons == nil {
		m.reasons = map[string]int{}
	}
	m.reasons[r.String()]++
}

// Latency is a histogram of durations in constant memory: a power of two of
// microseconds has 16 steps, so that a percentile is at most 1/16 too high.
type Latency struct{ n [latencySteps]atomic.Int64 }

const (
	latencyFine  = 4 // bits
	latencySteps = (36 - latencyFine) << latencyFine
)

func latencyStep(us uint64) int {
	us = max(us, 1<<latencyFine) // and all below are in the first step
	shift := bits.Len64(us) - latencyFine - 1
	return min(shift<<latencyFine+int(us>>shift)-1<<latencyFine, latencySteps-1)
}

// Add counts d.
func (l *Latency) Add(d time.Duration) { l.n[latencyStep(uint64(max(d, 0).Microseconds()))].Add(1) }

// Percentile is the duration that a share p (0 to 1) of those counted were no longer
// than, 0 where none was counted.
func (l *Latency) Percentile(p float64) time.Duration {
	var all, seen int64
	for i := range l.n {
		all += l.n[i].Load()
	}
	if all == 0 {
		return 0
	}
	for i := range l.n {
		if seen += l.n[i].Load(); float64(seen) >= p*float64(all) {
			shift, low := i>>latencyFine, uint64(i&(1<<latencyFine-1))
			return time.Duration((low+1<<latencyFine+1)<<shift) * time.Microsecond
		}
	}
	return 0
}
