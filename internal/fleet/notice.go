package fleet

import (
	"fmt"
	"time"
)

// Notice is what somebody should look at now: a rollout that stopped by itself.
type Notice struct {
	// ID is the same for the same step of the same rollout, however often it is told.
	ID      string    `json:"id"`
	Event   string    `json:"event"` // EventRolloutNo
	Time    time.Time `json:"time"`
	Text    string    `json:"text"` // one sentence, for chats that show it
	Rollout int64     `json:"rollout"`
	Product string    `json:"product"`
	Release string    `json:"release"` // version
	State   string    `json:"state"`   // paused or reverting
	Phase   int       `json:"phase"`   // from 1
	Phases  int       `json:"phases"`
	Reason  string    `json:"reason"`
	Devices Counts    `json:"devices"` // of all phases
}

// NoticeOf is that of a rollout that just stopped.
func NoticeOf(r Rollout, devices Counts, now time.Time) Notice {
	n := Notice{ID: fmt.Sprintf("rollout-%d-%d", r.ID, r.Version), Event: EventRolloutNo, Time: now.UTC(), Rollout: r.ID, Product: r.Product, Release: r.ReleaseVersion,
		State: string(r.State), Phase: min(r.Phase+1, len(r.Course.Phases)), Phases: len(r.Course.Phases), Reason: r.Reason, Devices: devices}
	n.Text = CleanText(fmt.Sprintf("rollout %d of %s %s is %s: %s", r.ID, r.Product, r.ReleaseVersion, r.State, r.Reason), MaxText)
	return n
}
