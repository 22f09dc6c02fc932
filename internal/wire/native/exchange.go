package native

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// Paths of the exchange.
const (
	PathPoll     = "/r1/poll"
	PathReport   = "/r1/report"
	PathEnrol    = "/r1/enrol"
	PathKeyLists = "/r1/keylists/" // latest, or a generation
)

// Defaults and bounds, with their reasons.
const (
	// DefaultComeBack is what devices are told to wait. At a quarter of an hour 100,000 devices
	// make 110 polls a second; each has its own jitter.
	DefaultComeBack = 15 * time.Minute
	// MinComeBack and MaxComeBack are what devices clamp to (docs/format/exchange.md).
	MinComeBack = time.Minute
	MaxComeBack = 24 * time.Hour
	// DefaultMaxDevices bounds the devices whose keys are in memory, about 500 bytes each.
	DefaultMaxDevices = 65536

	// flushEvery is how old a last-seen that a crash loses may be. A device's row is written once in
	// that time, however often it polls; a rollout's silence is a minute at least (fleet.Course).
	flushEvery   = 15 * time.Second
	flushTimeout = 10 * time.Second // at shutdown
)

// Config is what the exchange needs. All services and Now are required but Log.
type Config struct {
	Devices   fleet.NativeDevices
	Catalogue fleet.NativeCatalogue
	KeyLists  fleet.KeyLists
	// Replicas, if not nil: other servers share the store, and no nonce is judged in memory.
	Replicas fleet.Replicas
	Enroller fleet.Enroller
	Log      *slog.Logger
	Now      func() time.Time
	Random   io.Reader // nil: the system's

	// WireRaised, if not nil, is called when a device has spoken a stronger wire than before:
	// others that keep it in memory drop it.
	WireRaised func(device string)
	// TLSProxy: who speaks plain HTTP here came over TLS to a proxy in front.
	TLSProxy   bool
	ComeBack   time.Duration // 0 takes the default
	MaxDevices int           // 0 takes the default
}

// Server serves polls, reports, enrolments and key lists. Its methods may be called
// concurrently. Run must run beside it, or what idle polls teach is never written.
type Server struct {
	c       Config
	log     *slog.Logger
	devices *deviceCache
	offers  offers
}

// New makes a server.
func New(c Config) *Server {
	if c.ComeBack == 0 {
		c.ComeBack = DefaultComeBack
	}
	c.ComeBack = min(max(c.ComeBack, MinComeBack), MaxComeBack)
	if c.MaxDevices == 0 {
		c.MaxDevices = DefaultMaxDevices
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{c: c, log: c.Log, devices: newDeviceCache(c.Devices, c.MaxDevices)}
	s.offers.source, s.offers.log = c.Catalogue, c.Log
	return s
}

// Register adds the routes. A MAC in the body says who calls; key lists are public.
func (s *Server) Register(mux *http.ServeMux) {
	mux.HandleFunc("POST "+PathPoll, s.message(s.poll))
	mux.HandleFunc("POST "+PathReport, s.message(s.report))
	mux.HandleFunc("POST "+PathEnrol, s.message(s.enrol))
	mux.HandleFunc("GET "+PathKeyLists+"{generation}", s.keyList)
}

// Run writes behind what idle polls taught, every few seconds until ctx ends, and once
// more then.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.devices.flush(ctx); err != nil && ctx.Err() == nil {
				// Kept in memory, tried again next time.
				s.log.ErrorContext(ctx, "nonces could not be written", "error", err)
			}
		case <-ctx.Done():
			return s.Flush(context.WithoutCancel(ctx))
		}
	}
}

// Flush writes what is not written yet.
func (s *Server) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	return s.devices.flush(ctx)
}

// errWho is the one answer to an unknown device, an unknown or retired key, a wrong
// MAC and a wire that is too weak: no oracle.
var errWho = &fleet.Error{Code: fleet.CodeUnauthenticated, Message: "not authenticated"}

// message wraps a call whose body is a message and whose answer is one. h appends
// the answer to buf.
func (s *Server) message(h func(r *http.Request, body, buf []byte) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b := buffers.Get().(*buffer)
		defer buffers.Put(b)
		body, err := readMessage(w, r, b.in[:])
		var answer []byte
		if err == nil {
			answer, err = h(r, body, b.out[:])
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		head := w.Header()
		head["Content-Type"], head["Cache-Control"] = messageType, noStore
		head.Set("Content-Length", strconv.Itoa(len(answer)))
		_, _ = w.Write(answer) // who hung up is not told
	}
}

// buffer is what a call reads into and answers from.
type buffer struct{ in, out [core.MaxBody]byte }

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// Values of headers, shared by all answers.
var (
	messageType = []string{"application/octet-stream"}
	noStore     = []string{"no-store"}
)

// readMessage reads a body of at most core.MaxBody bytes into buf.
func readMessage(w http.ResponseWriter, r *http.Request, buf []byte) ([]byte, error) {
	tooLong := fleet.Errorf(fleet.CodeTooLarge, "a message has at most %d bytes", core.MaxBody)
	if r.ContentLength > core.MaxBody {
		w.Header().Set("Connection", "close") // nobody reads the rest
		return nil, tooLong
	}
	n, err := io.ReadFull(r.Body, buf)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return buf[:n], nil
	case err != nil:
		return nil, &fleet.Error{Code: fleet.CodeInvalid, Message: "the body can't be read", Err: err}
	}
	// Full: is there more?
	var one [1]byte
	if n, _ := io.ReadFull(r.Body, one[:]); n > 0 {
		w.Header().Set("Connection", "close")
		return nil, tooLong
	}
	return buf, nil
}

var statuses = map[fleet.Code]int{
	fleet.CodeInvalid:         http.StatusBadRequest,
	fleet.CodeNotFound:        http.StatusNotFound,
	fleet.CodeUnauthenticated: http.StatusUnauthorized,
	fleet.CodeReplay:          http.StatusConflict,
	fleet.CodeTooLarge:        http.StatusRequestEntityTooLarge,
	fleet.CodeNoSpace:         http.StatusInsufficientStorage,
	fleet.CodeBusy:            http.StatusServiceUnavailable,
}

// fail answers a status and nothing else: a device believes none of it.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	code := fleet.CodeOf(err)
	status := statuses[code]
	if status == 0 {
		status = http.StatusInternalServerError
		if r.Context().Err() == nil {
			s.log.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "error", err)
		}
	}
	head := w.Header()
	head["Cache-Control"] = noStore
	head.Set("Content-Length", "0")
	if code == fleet.CodeBusy || code == fleet.CodeNoSpace {
		// Spread the come-back of those that were turned away together.
		head.Set("Retry-After", strconv.Itoa(5+mathrand.IntN(26)))
	}
	w.WriteHeader(status)
}

// malformed is for who proved to have the key, or sent what names nobody.
func malformed(e core.Error) error {
	return &fleet.Error{Code: fleet.CodeInvalid, Message: "the message is malformed", Err: e}
}

// offers is the native catalogue in memory, read again when the generation moved.
type offers struct {
	source fleet.NativeCatalogue
	log    *slog.Logger
	mu     sync.RWMutex
	now    *fleet.NativeOffers
	load   sync.Mutex // one reader at a time
}

func (o *offers) held() *fleet.NativeOffers {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.now
}

// get answers a snapshot that is not older than the generation.
func (o *offers) get(ctx context.Context, generation int64) (*fleet.NativeOffers, error) {
	if n := o.held(); n != nil && n.Generation >= generation {
		return n, nil
	}
	o.load.Lock()
	defer o.load.Unlock()
	if n := o.held(); n != nil && n.Generation >= generation {
		return n, nil
	}
	snapshot, err := o.source.NativeSnapshot(ctx)
	if err != nil {
		return nil, err
	}
	n := fleet.NewNativeOffers(snapshot)
	for _, id := range n.Damaged {
		o.log.ErrorContext(ctx, "the manifest of a release is damaged: nobody gets it", "release", id)
	}
	o.mu.Lock()
	o.now = n
	o.mu.Unlock()
	return n, nil
}
