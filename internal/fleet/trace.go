package fleet

import (
	"fmt"
)

// Rule is one line of the answer to "why": a rule that was looked at, and what it said.
type Rule struct {
	Name    string `json:"rule"`
	Rollout int64  `json:"rollout,omitempty"`
	Result  string `json:"result"` // pass, next (this rollout is not for the device), stop, offer
	Text    string `json:"text"`
}

// Results of rules. Frozen: in the API.
const (
	RulePass  = "pass"
	RuleNext  = "next"
	RuleStop  = "stop"
	RuleOffer = "offer"
)

// Trace collects the rules of one decision, in order. Nil: nobody asks.
type Trace struct{ Rules []Rule }

func (t *Trace) add(rollout int64, name, result, format string, args ...any) {
	if t != nil {
		t.Rules = append(t.Rules, Rule{Name: name, Rollout: rollout, Result: result, Text: CleanText(fmt.Sprintf(format, args...), MaxText)})
	}
}
