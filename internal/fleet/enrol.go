package fleet

import (
	"context"
	"strings"
	"time"
)

// Limits of enrolment tokens.
const (
	MaxEnrolToken  = 32 // bytes of the public id
	MaxEnrolCount  = 1_000_000
	MaxEnrolTokens = 1000 // in force
	EnrolNonceSize = 16   // bytes (docs/format/exchange.md)
)

// EnrolToken lets devices become known by themselves. Its secret never crosses a
// wire and is kept sealed.
type EnrolToken struct {
	ID        string
	Product   string
	Pattern   string // of device ids, * and ?; "": any
	Count     int    // of devices that it takes
	Used      int
	Approval  bool // an operator has to say yes to each device
	CreatedAt time.Time
	ExpiresAt time.Time // zero: never
	RevokedAt time.Time // zero: in force
}

// Shared: several devices have it. Who holds it can compute the keys of the
// others from a recording, so it is taken over TLS only.
func (t EnrolToken) Shared() bool { return t.Count > 1 }

// EnrolStatus is what became of an enrolment; frozen, stored as text.
type EnrolStatus string

const (
	EnrolWaiting  EnrolStatus = "waiting"  // for approval
	EnrolApproved EnrolStatus = "approved" // and not yet asked for again
	EnrolTaken    EnrolStatus = "taken"    // the device is known
	EnrolRefused  EnrolStatus = "refused"  // never stored
)

// Enrolment is one device that came with a token.
type Enrolment struct {
	Token       string
	Device      string
	DeviceNonce [EnrolNonceSize]byte
	ServerNonce [EnrolNonceSize]byte
	Hardware    string // for people
	Status      EnrolStatus
	Time        time.Time
	// Why, where it was refused, for the log.
	Why string
}

// EnrolTokens is how an operator lets devices in.
type EnrolTokens interface {
	// AddEnrolToken stores a token; Used, CreatedAt and RevokedAt are set here.
	AddEnrolToken(ctx context.Context, t EnrolToken, secret Key, now time.Time) (EnrolToken, error)
	// ListEnrolTokens is all of them, in the order in which they were made.
	ListEnrolTokens(ctx context.Context) ([]EnrolToken, error)
	// RevokeEnrolToken forgets the secret. Devices that it made known stay known.
	RevokeEnrolToken(ctx context.Context, id string, now time.Time) error
	// WaitingEnrolments are those that an operator has yet to approve, oldest first.
	WaitingEnrolments(ctx context.Context) ([]Enrolment, error)
	// ApproveEnrolment says yes to a waiting device. token "" is the one by which it waits;
	// CodeConflict where there are several.
	ApproveEnrolment(ctx context.Context, device, token string, now time.Time) (Enrolment, error)
}

// Enroller is what the native wire asks of a store for an enrolment.
type Enroller interface {
	// EnrolToken answers CodeNotFound for one that is not known or is revoked: its secret is gone.
	EnrolToken(ctx context.Context, id string) (EnrolToken, Key, error)
	// ServerNonce is that of an enrolment by the token with that nonce, found=false where there is none.
	ServerNonce(ctx context.Context, token, device string, deviceNonce [EnrolNonceSize]byte) (nonce [EnrolNonceSize]byte, found bool, err error)
	// Enrol decides by the rules of TakeEnrolment, and makes the device known with key 0 where it
	// is taken: key must be the one that follows from e's nonces. CodeConflict where another
	// ServerNonce was stored meanwhile: ask for it and try again.
	Enrol(ctx context.Context, e Enrolment, key Key, now time.Time) (Enrolment, error)
}

// EnrolCase is what a store looks up for TakeEnrolment.
type EnrolCase struct {
	Token  EnrolToken
	Before *Enrolment // of this token and device, nil: none
	Open   int        // enrolments of the token that wait or are approved, others than Before
	Known  bool       // a device has this id
	Polled bool       // and has spoken with its native key
}

// TakeEnrolment decides an enrolment. Rules, numbered for the tests:
//
//	E1 the same request again gets the same answer until the device has polled with the key
//	E2 a known id is never given another key
//	E3 a token that is revoked, has expired, is spent, or is not for this id takes nobody
//	E4 whoever waits takes a place; asked again with another nonce it waits on with that one
//	E5 with approval a device waits until an operator said yes to this very request
func TakeEnrolment(c EnrolCase, e Enrolment, now time.Time) Enrolment {
	t, b := c.Token, c.Before
	e.Token, e.Time = t.ID, now
	refuse := func(why string) Enrolment {
		e.Status, e.Why = EnrolRefused, why
		return e
	}
	same := b != nil && b.DeviceNonce == e.DeviceNonce
	if same {
		e.ServerNonce = b.ServerNonce
	}
	if same && b.Status == EnrolTaken {
		if !c.Known || c.Polled {
			return refuse("it has its key already")
		}
		e.Status, e.Time = EnrolTaken, b.Time
		return e
	}
	switch {
	case !t.RevokedAt.IsZero():
		return refuse("the token is revoked")
	case !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt):
		return refuse("the token has expired")
	case c.Known || b != nil && b.Status == EnrolTaken:
		return refuse("the device is known already: a token gives nobody a new key")
	case !MatchID(t.Pattern, e.Device):
		return refuse("the token is not for this id")
	case b == nil && t.Used+c.Open >= t.Count, b != nil && t.Used >= t.Count:
		return refuse("the token is spent")
	}
	switch {
	case !t.Approval, same && b.Status == EnrolApproved:
		e.Status = EnrolTaken
	default:
		e.Status = EnrolWaiting
		if same {
			e.Time = b.Time
		}
	}
	return e
}

// MatchID says whether a device's id fits a pattern: * is any number of
// characters, ? is one; "" fits every id.
func MatchID(pattern, id string) bool {
	if pattern == "" {
		return true
	}
	// The place after the last star, and where the id stood then: that is all that can be
	// tried again, so the time is bounded by the product of the lengths.
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(id) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == id[i]):
			p, i = p+1, i+1
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// ValidateEnrolToken checks what an operator says of a token.
func ValidateEnrolToken(t EnrolToken, now time.Time) error {
	if !isPrintable(t.ID, MaxEnrolToken) || strings.Contains(t.ID, ":") {
		return Errorf(CodeInvalid, "a token's id is 1 to %d characters of printable ASCII without spaces and colons", MaxEnrolToken)
	}
	if err := ValidateProduct(t.Product); err != nil {
		return err
	}
	if t.Pattern != "" && !isPrintable(t.Pattern, MaxDeviceID) {
		return Errorf(CodeInvalid, "the pattern of ids is at most %d characters of printable ASCII without spaces", MaxDeviceID)
	}
	if t.Count < 1 || t.Count > MaxEnrolCount {
		return Errorf(CodeInvalid, "a token is for 1 to %d devices, not %d", MaxEnrolCount, t.Count)
	}
	if !t.ExpiresAt.IsZero() && !t.ExpiresAt.After(now) {
		return Errorf(CodeInvalid, "the token would have expired already")
	}
	return nil
}

func isPrintable(s string, most int) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= most
}
