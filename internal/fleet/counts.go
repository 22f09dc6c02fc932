package fleet

// Counts are the devices of a phase by what became of them, each once. Devices of too
// little assurance are in Uncounted, Progress, ToRevert and Reverting alone.
type Counts struct {
	Offered   int `json:"offered"`   // all that count
	Progress  int `json:"progress"`  // on their way, and heard of
	Confirmed int `json:"confirmed"` //
	Failed    int `json:"failed"`    // failed, or went back by themselves
	Silent    int `json:"silent"`    // took the image and were not heard of again
	Unproven  int `json:"unproven"`  // could not reach the server
	Aside     int `json:"aside"`     // skipped, cancelled, or ordered back: they say nothing of the release
	Retrying  int `json:"retrying"`  // of Failed, those that are tried again
	OwnBad    int `json:"own_bad"`   // of Failed and Silent, those with keys of their own
	Uncounted int `json:"uncounted"` //
	ToRevert  int `json:"to_revert"` // run it by this rollout, and have no order to go back
	Reverting int `json:"reverting"` // have one
}

// Bad is what counts against the release.
func (c Counts) Bad() int { return c.Failed + c.Silent }

// Plus adds them up.
func (c Counts) Plus(o Counts) Counts {
	return Counts{c.Offered + o.Offered, c.Progress + o.Progress, c.Confirmed + o.Confirmed, c.Failed + o.Failed, c.Silent + o.Silent, c.Unproven + o.Unproven,
		c.Aside + o.Aside, c.Retrying + o.Retrying, c.OwnBad + o.OwnBad, c.Uncounted + o.Uncounted, c.ToRevert + o.ToRevert, c.Reverting + o.Reverting}
}

// Tally is so many devices of which the same is to be said.
type Tally struct {
	N         int
	Phase     int // index
	State     DeploymentState
	Class     Class
	Tries     int
	Assurance Assurance
	Quiet     bool // not heard of for the rollout's silence
	Runs      bool // it is the last release that the device confirmed
	Ordered   bool // the device has an order to go back
}

// Count puts a tally where it counts.
func (c *Counts) Count(t Tally, least Assurance) {
	under := false // way
	switch t.State {
	case StateConfirmed:
		if t.Ordered {
			c.Reverting += t.N
		} else if t.Runs {
			c.ToRevert += t.N
		}
	case StateOffered, StateDownloading, StateVerifying, StateRebooting, StateTrial, StateUnproven:
		if under = !t.Quiet; under && t.State != StateOffered {
			c.Progress += t.N
		}
	}
	if t.Assurance != AssuranceOwn && (t.Assurance != AssuranceShared || least != AssuranceShared) {
		c.Uncounted += t.N
		return
	}
	c.Offered += t.N
	bad := false
	switch t.State {
	case StateConfirmed:
		c.Confirmed += t.N
	case StateFailed, StateReverted:
		if t.Class == ClassOrdered {
			c.Aside += t.N
			break
		}
		c.Failed += t.N
		bad = true
		if _, again := RetryAfter(t.Class, t.Tries, 1); again {
			c.Retrying += t.N
		}
	case StateVerifying, StateRebooting, StateTrial:
		if !under {
			c.Silent += t.N
			bad = true
		}
	case StateUnproven:
		c.Unproven += t.N
	case StateSkipped, StateCancelled:
		c.Aside += t.N
	}
	if bad && t.Assurance == AssuranceOwn {
		c.OwnBad += t.N
	}
}

// Evidence is what of it was known when a person said to go on: it stops the
// rollout no second time.
type Evidence struct {
	Confirmed int `json:"confirmed"`
	Bad       int `json:"bad"`
	Unproven  int `json:"unproven"`
}
