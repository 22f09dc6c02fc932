// Package v1 is the server's side of the original chunk protocol: the calls of
// devices (/api/inverter/fota/...) and of operators' old scripts (/api/cloud/...).
// It decodes, asks the domain and encodes; what a device may get is decided in
// fleet. It imports no store and no blob: what it needs of them are the small
// interfaces below. The wire as served, with its weaknesses: docs/api/v1.md.
package v1

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Paths of the wire.
const (
	PathManifest = "/api/inverter/fota/manifest"
	PathChunk    = "/api/inverter/fota/chunk"
	PathStatus   = "/api/inverter/fota/status"
	PathRollback = "/api/inverter/fota/rollback-status"

	PathUpload        = "/api/cloud/fota/upload"
	PathFleetStatus   = "/api/cloud/fota/status"
	PathOrderRollback = "/api/cloud/fota/rollback"
	PathLogs          = "/api/cloud/logs/fota"
)

// Defaults and bounds, with their reasons.
const (
	// DefaultWindow is how far a ten-digit timestamp may be off. Boards set their
	// clock by SNTP and drift seconds a day; five minutes is Kerberos' bound too.
	DefaultWindow = 300 * time.Second
	// DefaultNonceJump bounds how far a nonce may leap: a re-split request appends digits to it.
	DefaultNonceJump = uint64(1) << 32
	// splitLeap bounds the leap of a nonce whose first digits may have been the target's last.
	// Devices poll before they ask for chunks, and a poll's target ends in a letter: what leaps is the
	// poll, and chunks count on from it.
	splitLeap = 1024
	// DefaultCacheBytes holds the prepared answers of some twenty images of 1 MiB.
	DefaultCacheBytes = int64(64 << 20)
	// DefaultMaxDevices bounds the devices whose keys and nonces are in memory, about 400 bytes each.
	DefaultMaxDevices = 65536
	// DefaultMaxImage is the largest flash that an ESP32 maps, in bytes.
	DefaultMaxImage = int64(16 << 20)

	maxReportBody = 16 << 10 // bytes; the longest report with an envelope has under 2 KiB
	maxOrderBody  = 16 << 10 // bytes of an operator's order
	maxUploads    = 2        // at once: each has the image in memory three times over
	uploadTimeout = 10 * time.Minute
	flushEvery    = time.Second
	flushTimeout  = 10 * time.Second // at shutdown

	// MaxKeyAge is how long a server goes on believing a key that another one replaced.
	MaxKeyAge = 5 * time.Second
	// takes bounds how often a nonce is judged anew, because the device spoke to another server.
	takes = 4
)

// Blobs opens the bytes of an image.
type Blobs interface {
	OpenBlob(ctx context.Context, d fleet.Digest) (io.ReadCloser, error)
}

// Publisher takes an image in: checks, stores and publishes it. digest nil: not said. It leaves
// nothing behind where it returns an error.
type Publisher interface {
	PublishImage(ctx context.Context, product, version string, chunkSize int, digest *fleet.Digest, image io.Reader) (fleet.Release, bool, error)
}

// Rollouts is what decides where a product has rollouts.
type Rollouts interface {
	fleet.RolloutCatalogue
	fleet.RolloutDevices
}

// Config is what the server needs. All services and Now are required but Log.
type Config struct {
	Devices     fleet.Devices
	Orders      fleet.Orders
	Deployments fleet.Deployments
	Catalogue   fleet.Catalogue
	Events      fleet.Log
	Tokens      fleet.Tokens
	Blobs       Blobs
	Publisher   Publisher
	Rollouts    Rollouts // nil: there are none
	// Replicas, if not nil: other servers share the store. What a request needs of a device's nonce and
	// offer is read from there each time, and keys are in memory for MaxKeyAge at most.
	Replicas fleet.Replicas
	Log      *slog.Logger
	Now      func() time.Time

	// SilentDevice, if not empty, is whose requests without a MAC are.
	SilentDevice string
	// OpenOperator takes operators' calls without a token, where they come from this machine.
	// The caller makes sure that the listener is on loopback.
	OpenOperator bool

	Window     time.Duration // of ten-digit timestamps; 0 switches the check off
	NonceJump  uint64        // 0 takes the default
	CacheBytes int64         // 0 takes the default
	MaxDevices int           // 0 takes the default
	MaxImage   int64         // bytes; 0 takes the default
}

// Server serves the wire. Its methods may be called concurrently. Run must run
// beside it, or what polls teach is never written.
type Server struct {
	c       Config
	log     *slog.Logger
	devices *deviceCache
	cat     catalog
	images  *imageCache
	uploads chan struct{}

	warnMu     sync.Mutex
	warned     map[string]bool // devices with a shared key that the log named
	warnSilent sync.Once       // that the silent device is not known
}

// New makes a server.
func New(c Config) *Server {
	if c.NonceJump == 0 {
		c.NonceJump = DefaultNonceJump
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = DefaultCacheBytes
	}
	if c.MaxDevices == 0 {
		c.MaxDevices = DefaultMaxDevices
	}
	if c.MaxImage == 0 {
		c.MaxImage = DefaultMaxImage
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{c: c, log: c.Log, uploads: make(chan struct{}, maxUploads), warned: make(map[string]bool)}
	s.devices = newDeviceCache(c.Devices, c.MaxDevices)
	if c.Replicas != nil {
		s.devices.maxAge, s.devices.now = MaxKeyAge, c.Now
	}
	s.cat.source = c.Catalogue
	if c.Rollouts != nil {
		s.cat.rollouts = c.Rollouts
	}
	s.images = newImageCache(c.Blobs, c.CacheBytes)
	return s
}

// Register adds the wire's routes. Who may call what is the third column.
func (s *Server) Register(mux *http.ServeMux) {
	for _, r := range []struct {
		method, path string
		handle       http.HandlerFunc
	}{
		{"GET", PathManifest, s.device(s.manifest)},
		{"GET", PathChunk, s.device(s.chunk)},
		{"POST", PathStatus, s.report}, // a device's too: its body is part of who speaks
		{"GET", PathRollback, s.device(s.rollbackStatus)},
		{"POST", PathUpload, s.operator(s.upload)},
		{"GET", PathFleetStatus, s.operator(s.fleetStatus)},
		{"POST", PathOrderRollback, s.operator(s.orderRollback)},
		{"GET", PathLogs, s.operator(s.logs)},
	} {
		mux.HandleFunc(r.path, onlyMethod(r.method, r.handle))
	}
}

func onlyMethod(method string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			w.Header().Set("Allow", method)
			writeError(w, http.StatusMethodNotAllowed, "method_not_allowed", "method not allowed")
			return
		}
		h(w, r)
	}
}

// Run writes behind what requests taught, every second until ctx ends, and once
// more then.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.devices.flush(ctx); err != nil && ctx.Err() == nil {
				// Kept in memory, tried again next second.
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

// Orders is the store's, with what this server holds in memory kept in step:
// whoever resets a nonce must do it through this.
func (s *Server) Orders() fleet.Orders { return orders{s.c.Orders, s.devices} }

type orders struct {
	fleet.Orders
	cache *deviceCache
}

func (o orders) ResetNonce(ctx context.Context, device string, now time.Time) error {
	return o.cache.without(device, func() error { return o.Orders.ResetNonce(ctx, device, now) })
}

// DeviceStore is the store's, with what this server holds in memory kept in
// step: whoever changes a key must do it through this.
func (s *Server) DeviceStore() fleet.Devices { return devices{s.c.Devices, s.devices} }

type devices struct {
	fleet.Devices
	cache *deviceCache
}

func (d devices) SetProductKey(ctx context.Context, product string, key fleet.Key, now time.Time) error {
	if err := d.Devices.SetProductKey(ctx, product, key, now); err != nil {
		return err
	}
	return d.cache.forgetShared(ctx)
}

// WireRaised drops what is in memory of a device that has spoken a stronger wire.
func (s *Server) WireRaised(device string) {
	if err := s.devices.forget(context.Background(), device); err != nil {
		// What was not written stays in memory, and is refused at its next poll (checkWire).
		s.log.Warn("a device that spoke a stronger wire is still in memory", "device", device, "error", err)
	}
}

// Keyring is k with what this server holds in memory kept in step: whoever lets a
// device speak v1 again must do it through this.
func (s *Server) Keyring(k fleet.NativeKeyring) fleet.NativeKeyring { return keyring{k, s.devices} }

type keyring struct {
	fleet.NativeKeyring
	cache *deviceCache
}

func (k keyring) ResetWire(ctx context.Context, device string, now time.Time) error {
	if err := k.NativeKeyring.ResetWire(ctx, device, now); err != nil {
		return err
	}
	return k.cache.forget(ctx, device)
}

// fail answers err. What is not the caller's fault is logged, not sent.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var e *fleet.Error
	if !errors.As(err, &e) {
		e = &fleet.Error{Code: fleet.CodeInternal, Err: err}
	}
	status, msg := httpStatus(e.Code), e.Message
	switch e.Code {
	case fleet.CodeInternal:
		if r.Context().Err() == nil {
			s.log.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "error", err)
		}
		msg = "internal error"
	case fleet.CodeBusy, fleet.CodeNoSpace:
		retryLater(w)
	case fleet.CodeForbidden:
		if e.Hint != "" {
			msg += ": " + e.Hint // v1's errors have no place of their own for it
		}
	}
	writeError(w, status, string(e.Code), msg)
}

func httpStatus(c fleet.Code) int {
	switch c {
	case fleet.CodeInvalid:
		return http.StatusBadRequest
	case fleet.CodeNotFound:
		return http.StatusNotFound
	case fleet.CodeConflict:
		return http.StatusConflict
	case fleet.CodeUnauthenticated, fleet.CodeReplay:
		return http.StatusUnauthorized
	case fleet.CodeForbidden:
		return http.StatusForbidden
	case fleet.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case fleet.CodeNoSpace:
		return http.StatusInsufficientStorage
	case fleet.CodeBusy:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
