package v1

import (
	"net/http"
	"strings"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Digits that the headers may have. A nonce is stored in 63 bits. Ten digits are
// seconds since 1970 from 2001 to 2286; fewer are a device without a clock.
const (
	nonceDigits = 19
	clockDigits = 10
	maxNonce    = 1<<63 - 1
)

// errWho is the one answer to an unknown device, a wrong MAC, a silent one that
// is not admitted: no oracle.
var errWho = &fleet.Error{Code: fleet.CodeUnauthenticated, Message: "not authenticated"}

// errReplay is for those who proved to have the key.
func errReplay(msg string) error { return &fleet.Error{Code: fleet.CodeReplay, Message: msg} }

// nobody's key has an unknown device's MAC computed too. That the store is asked for
// an unknown one each time may still show in the time: ids are no secret.
var nobody fleet.Key

// caller is who speaks.
type caller struct {
	dev    *device
	proven bool
	nonce  uint64 // of a proven one, that its report is to take with it; 0: it is taken
	// generation of the catalogue, read with the nonce; 0: it was not.
	generation int64
}

type signature struct{ nonce, timestamp, mac string }

// headerSignature: ambiguous where a header is there twice, for which of them was
// signed?
func headerSignature(r *http.Request) (sig signature, present, ambiguous bool) {
	for _, h := range []string{"Device-Id", "X-Nonce", "X-Timestamp", "X-Mac"} {
		if len(r.Header[h]) > 1 {
			return sig, false, true
		}
	}
	sig = signature{r.Header.Get("X-Nonce"), r.Header.Get("X-Timestamp"), r.Header.Get("X-MAC")}
	return sig, sig != signature{}, false
}

// identify finds the device and checks the MACs that are present: the header's
// and the envelope's, nil where there is none. The nonce is used up where it
// returns nil; a proven POST must call dev.posted when its report is stored.
func (s *Server) identify(r *http.Request, env *envelope) (caller, error) {
	sig, signed, ambiguous := headerSignature(r)
	if ambiguous {
		return caller{}, errWho
	}
	id := r.Header.Get("Device-ID")
	if !signed && env == nil {
		return s.silent(r, id)
	}
	if id == "" {
		// Only a silent device may leave its name away, and the MAC is checked as its.
		id = s.c.SilentDevice
	}
	dev, key, err := s.lookUp(r, id)
	if err != nil {
		return caller{}, err
	}
	var sigs []signature
	right, split := true, false
	if signed {
		// Our own devices sign the path with its query; some fielded ones sign the bare path.
		target := r.URL.RequestURI()
		bare, _, query := strings.Cut(target, "?")
		whole := textMAC(key, sig.mac, target, sig.nonce, sig.timestamp)
		right = whole || query && textMAC(key, sig.mac, bare, sig.nonce, sig.timestamp)
		split = whole && endsInDigit(target)
		sigs = append(sigs, sig)
	}
	if env != nil {
		flag := "0"
		if env.encrypted {
			flag = "1"
		}
		ok := textMAC(key, env.sig.mac, env.sig.nonce, env.sig.timestamp, flag, env.payload)
		right = right && ok
		sigs = append(sigs, env.sig)
	}
	if dev == nil || !right {
		return caller{}, errWho
	}
	u, err := s.readSigned(sigs)
	if err != nil {
		return caller{}, err
	}
	u.split, u.post = split, r.Method == http.MethodPost
	generation, err := s.take(r.Context(), dev, u)
	if err != nil {
		return caller{}, err
	}
	s.warnShared(r, dev)
	c := caller{dev: dev, proven: true, generation: generation}
	if s.c.Replicas == nil {
		c.nonce = u.nonce
	}
	return c, nil
}

// endsInDigit: v1 has no separators, so the last digits of such a target may be
// the first of the nonce that was signed, or the other way round.
func endsInDigit(target string) bool {
	last := target[len(target)-1] // RequestURI is never empty
	return '0' <= last && last <= '9'
}

// lookUp answers a nil device and nobody's key for one that is not known, has no key or
// has spoken a stronger wire: whoever got its v1 key must not be able to fall back.
func (s *Server) lookUp(r *http.Request, id string) (*device, *fleet.Key, error) {
	if fleet.ValidateDeviceID(id) != nil {
		return nil, &nobody, nil
	}
	dev, err := s.devices.get(r.Context(), id)
	if fleet.CodeOf(err) == fleet.CodeNotFound || err == nil && (!dev.hasKey || dev.stronger) {
		return nil, &nobody, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return dev, &dev.key, nil
}

// readSigned reads numbers and judges times. Where a header and an envelope are
// both there, each must be new, and the higher nonce is used up.
func (s *Server) readSigned(sigs []signature) (u used, err error) {
	u.lowest = maxNonce
	for _, sig := range sigs {
		n, ok := parseDecimal(sig.nonce, nonceDigits)
		if !ok || n == 0 || n > maxNonce {
			return u, errReplay("the nonce is not a canonical decimal above zero")
		}
		ts, ok := parseDecimal(sig.timestamp, clockDigits)
		if !ok {
			return u, errReplay("the timestamp is not a canonical decimal of at most ten digits")
		}
		if len(sig.timestamp) == clockDigits {
			u.clocked = true
			if off := s.c.Now().Sub(time.Unix(int64(ts), 0)).Abs(); s.c.Window > 0 && off > s.c.Window {
				return u, errReplay("the timestamp is out of the window")
			}
		} else {
			u.short = true
		}
		u.nonce, u.lowest = max(u.nonce, n), min(u.lowest, n)
	}
	return u, nil
}

// silent admits a request without any MAC, as the one device that may send such.
func (s *Server) silent(r *http.Request, id string) (caller, error) {
	if s.c.SilentDevice == "" || (id != "" && id != s.c.SilentDevice) {
		return caller{}, errWho
	}
	dev, err := s.devices.get(r.Context(), s.c.SilentDevice)
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		// Once: anybody can send such a request, as often as he likes.
		s.warnSilent.Do(func() {
			s.log.WarnContext(r.Context(), "the silent device is not known", "device", s.c.SilentDevice,
				"hint", "add it with 'runnel devices add'")
		})
		return caller{}, errWho
	}
	if err != nil {
		return caller{}, err
	}
	if dev.stronger {
		return caller{}, errWho
	}
	dev.seenSilent(s.c.Now())
	return caller{dev: dev}, nil
}

// warnShared names each device once that speaks with its product's key.
func (s *Server) warnShared(r *http.Request, dev *device) {
	if dev.assurance != fleet.AssuranceShared {
		return
	}
	s.warnMu.Lock()
	quiet := s.warned[dev.id] || len(s.warned) >= s.c.MaxDevices
	if !quiet {
		s.warned[dev.id] = true
	}
	s.warnMu.Unlock()
	if !quiet {
		s.log.WarnContext(r.Context(), "device uses its product's key: every device of the product can speak in its name",
			"device", dev.id, "hint", "give it a key of its own")
	}
}

type deviceHandler func(w http.ResponseWriter, r *http.Request, c caller) error

// device wraps a GET of a device.
func (s *Server) device(h deviceHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := s.identify(r, nil)
		if err == nil {
			err = h(w, r, c)
		}
		if err != nil {
			s.fail(w, r, err)
		}
	}
}

// operator wraps an operator's call: a bearer token, or none where the operator
// of this machine said so.
func (s *Server) operator(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if auth := r.Header.Get("Authorization"); auth != "" {
			// What is there is checked, also where none is needed. A scheme has no case (RFC 9110, 11.1).
			scheme, token, _ := strings.Cut(auth, " ")
			if !strings.EqualFold(scheme, "Bearer") {
				token = ""
			}
			if _, err := s.c.Tokens.CheckToken(r.Context(), token); err != nil {
				w.Header().Set("WWW-Authenticate", "Bearer")
				s.fail(w, r, err)
				return
			}
		} else if !s.c.OpenOperator {
			w.Header().Set("WWW-Authenticate", "Bearer")
			s.fail(w, r, &fleet.Error{Code: fleet.CodeUnauthenticated, Message: "an operator's token is needed"})
			return
		} else if why := notLocal(r); why != "" {
			s.fail(w, r, &fleet.Error{Code: fleet.CodeForbidden, Message: "without a token only this machine's own scripts are served: " + why})
			return
		}
		h(w, r)
	}
}
