// Package native is the server's side of the native wire over HTTP
// (docs/format/exchange.md). It decodes, calls the domain and encodes, and must
// never import a store.
package native

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Streams, manifests and stream sheets, by their SHA-256: public, immutable, and without a word
// of who asks. A stream goes from its file to the connection: nothing may wrap
// the ResponseWriter, nor the file, or sendfile is lost (architecture, rule 6).

const (
	// objectCache is what may be kept for ever: a name is the content's digest.
	objectCache = "public, max-age=31536000, immutable, no-transform"
	// DefaultMaxStreams at once: as many again of the server's requests stay for polls and reports,
	// however slowly some read.
	DefaultMaxStreams = 1024
	// knownStreams are remembered, 40 bytes each: more than a fleet downloads in a day.
	knownStreams = 4096

	// A stream has this time, and a second for each streamRate bytes of it. A cut costs a
	// device little: it goes on where it was.
	streamTime = time.Minute
	streamRate = 1 << 10 // bytes/s
	streamMost = time.Hour
)

// StreamFiles opens a stream's file; CodeNotFound where there is none.
type StreamFiles interface {
	Open(ctx context.Context, d fleet.Digest) (*os.File, error)
}

// ObjectIndex says what is an object. The files of images lie beside those of
// streams and are none: without it anybody could read them.
type ObjectIndex interface {
	// Stream and Manifest answer CodeNotFound for what is none.
	Stream(ctx context.Context, d fleet.Digest) (fleet.Stream, error)
	Manifest(ctx context.Context, d fleet.Digest) (fleet.Manifest, error)
	// Sheet is the stream whose sheet's envelope has that digest; CodeNotFound where there is none.
	Sheet(ctx context.Context, d fleet.Digest) (fleet.Stream, error)
}

// ObjectsConfig is what Objects need; Files and Index are required.
type ObjectsConfig struct {
	Files StreamFiles
	Index ObjectIndex
	Log   *slog.Logger
	// Redirect is what stands before a digest in the URL of a stream that lies elsewhere, at a
	// CDN; "": they are served here. See CheckRedirect.
	Redirect string
	// Sign makes a URL with which anybody may read a stream where it is stored, for a while;
	// callers are sent there. nil: they are not.
	Sign       func(ctx context.Context, d fleet.Digest) (string, error)
	MaxStreams int // at once; 0: DefaultMaxStreams
}

// Objects serves streams, manifests and stream sheets.
type Objects struct {
	c     ObjectsConfig
	slots chan struct{}

	mu    sync.RWMutex
	sizes map[fleet.Digest]int64 // of streams that were asked for; they never change
}

// CheckRedirect says what is wrong with a prefix for ObjectsConfig.Redirect.
func CheckRedirect(prefix string) error {
	u, err := url.Parse(prefix)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsAny(prefix, "?#") {
		return &fleet.Error{Code: fleet.CodeInvalid, Message: "this is no URL before which a digest can stand",
			Hint: "write it like https://cdn.example.com/streams/, without a query"}
	}
	return nil
}

// NewObjects makes them.
func NewObjects(c ObjectsConfig) *Objects {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MaxStreams <= 0 {
		c.MaxStreams = DefaultMaxStreams
	}
	return &Objects{c: c, slots: make(chan struct{}, c.MaxStreams), sizes: map[fleet.Digest]int64{}}
}

// Register adds the routes; GET stands for HEAD too.
func (o *Objects) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /r1/streams/{digest}", o.stream)
	mux.HandleFunc("GET /r1/manifests/{digest}", o.manifest)
	mux.HandleFunc("GET /r1/sheets/{digest}", o.sheet)
}

// digestOf reads the digest of the path. Caches tell names apart by their bytes:
// only one spelling is one.
func digestOf(r *http.Request) (fleet.Digest, error) {
	s := r.PathValue("digest")
	d, err := fleet.ParseDigest(s)
	if err != nil || d.String() != s {
		return d, fleet.Errorf(fleet.CodeNotFound, "no object has this name")
	}
	return d, nil
}

func (o *Objects) stream(w http.ResponseWriter, r *http.Request) {
	d, err := digestOf(r)
	if err != nil {
		o.fail(w, r, err)
		return
	}
	size, err := o.size(r.Context(), d)
	if err != nil {
		o.fail(w, r, err)
		return
	}
	if (o.c.Redirect != "" || o.c.Sign != nil) && o.redirect(w, r, d) {
		return
	}
	select {
	case o.slots <- struct{}{}:
		defer func() { <-o.slots }()
	default:
		o.fail(w, r, fleet.Errorf(fleet.CodeBusy, "too many streams at once"))
		return
	}
	f, err := o.c.Files.Open(r.Context(), d)
	if err == nil {
		defer f.Close()
		err = hasSize(f, size)
	}
	switch code := fleet.CodeOf(err); {
	case code == fleet.CodeBusy, code == fleet.CodeNoSpace: // it is fetched from elsewhere, and comes later
		o.fail(w, r, &fleet.Error{Code: fleet.CodeBusy, Message: "a stream is not here yet", Err: err})
		return
	case err != nil:
		// It was published: that it is not there is the server's fault.
		o.fail(w, r, &fleet.Error{Code: fleet.CodeInternal, Message: "a published stream can't be read", Op: "stream " + d.String(), Err: err})
		return
	}
	setRange(r.Header, size)
	// The server's own write time-out is for small answers. It is an error only where there is no
	// connection, in tests.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(min(streamTime+time.Duration(size/streamRate)*time.Second, streamMost)))
	serve(w, r, d, "application/octet-stream", f)
}

// size is the length of a stream's file. The index is asked once.
func (o *Objects) size(ctx context.Context, d fleet.Digest) (int64, error) {
	o.mu.RLock()
	n, ok := o.sizes[d]
	o.mu.RUnlock()
	if ok {
		return n, nil
	}
	m, err := o.c.Index.Stream(ctx, d)
	if err != nil {
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.sizes) >= knownStreams {
		clear(o.sizes)
	}
	o.sizes[d] = m.Length
	return m.Length, nil
}

// hasSize wants the file to be as long as the stream: a shorter one would be
// kept by caches as if it were whole.
func hasSize(f *os.File, size int64) error {
	st, err := f.Stat()
	if err == nil && st.Size() != size {
		err = errors.New("the file has " + strconv.FormatInt(st.Size(), 10) + " bytes, not " + strconv.FormatInt(size, 10))
	}
	return err
}

// redirect sends the caller to where the stream lies, unless it asks for the
// origin: a CDN that fetches from here, or a device that was given bad bytes
// there. A request to go around caches stays one; a signed URL has no place for it,
// and is a new one each time. Where none can be made the stream is served here.
func (o *Objects) redirect(w http.ResponseWriter, r *http.Request, d fleet.Digest) bool {
	q := r.URL.Query()
	if q.Get("origin") == "1" {
		return false
	}
	to := o.c.Redirect + d.String()
	if o.c.Sign != nil {
		var err error
		if to, err = o.c.Sign(r.Context(), d); err != nil {
			o.c.Log.WarnContext(r.Context(), "no URL can be signed: the stream is served from here", "error", err)
			return false
		}
	} else if n, err := strconv.ParseUint(q.Get("fresh"), 10, 64); err == nil {
		to += "?fresh=" + strconv.FormatUint(n, 10)
	}
	h := w.Header()
	h.Set("Location", to)
	h.Set("Cache-Control", "no-store") // where streams lie may change
	w.WriteHeader(http.StatusFound)
	return true
}

func (o *Objects) manifest(w http.ResponseWriter, r *http.Request) {
	o.envelope(w, r, func(d fleet.Digest) ([]byte, error) {
		m, err := o.c.Index.Manifest(r.Context(), d)
		return m.Envelope, err
	})
}

func (o *Objects) sheet(w http.ResponseWriter, r *http.Request) {
	o.envelope(w, r, func(d fleet.Digest) ([]byte, error) {
		m, err := o.c.Index.Sheet(r.Context(), d)
		return m.Sheet, err
	})
}

func (o *Objects) envelope(w http.ResponseWriter, r *http.Request, read func(fleet.Digest) ([]byte, error)) {
	d, err := digestOf(r)
	if err != nil {
		o.fail(w, r, err)
		return
	}
	p, err := read(d)
	if err != nil {
		o.fail(w, r, err)
		return
	}
	setRange(r.Header, int64(len(p)))
	serve(w, r, d, "application/cose", bytes.NewReader(p))
}

// content is what http.ServeContent reads.
type content interface {
	Read([]byte) (int, error)
	Seek(int64, int) (int64, error)
}

func serve(w http.ResponseWriter, r *http.Request, d fleet.Digest, kind string, c content) {
	h := w.Header()
	h.Set("Cache-Control", objectCache)
	h.Set("Content-Type", kind)
	h.Set("ETag", `"`+d.String()+`"`)
	// No time: what has a digest for a name was never modified, and a date in If-Range matches nothing.
	http.ServeContent(w, r, "", time.Time{}, c)
}

// setRange leaves in h what http.ServeContent reads as RFC 9110 (14.1, 14.2) has
// it. Several ranges, and units other than bytes, are passed over: the answer is
// the whole, as is anybody's right who does not know them. Numbers of any length
// are numbers, and the last 0 bytes are no bytes: 416.
func setRange(h http.Header, size int64) {
	all := h["Range"]
	if len(all) == 0 {
		return
	}
	unit, spec, ok := strings.Cut(all[0], "=")
	if len(all) > 1 || !ok || !strings.EqualFold(unit, "bytes") || strings.Contains(spec, ",") {
		h.Del("Range")
		return
	}
	first, last, ok := strings.Cut(strings.Trim(spec, " \t"), "-")
	a, aok := number(first)
	b, bok := number(last)
	if !ok || !aok || !bok {
		h.Set("Range", "bytes=-") // refused; what was malformed may pass http.ServeContent: it takes signs
		return
	}
	if first == "" && last != "" && b == 0 {
		first, last, a = "0", "", size
	}
	spec = "bytes="
	if first != "" {
		spec += strconv.FormatInt(a, 10)
	}
	spec += "-"
	if last != "" {
		spec += strconv.FormatInt(b, 10)
	}
	h.Set("Range", spec)
}

// number reads digits, or nothing; what is too large for a number is a very large one.
func number(s string) (int64, bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil && s != "" {
		n = math.MaxInt64 - 1
	}
	return n, true
}

// objectStatus is the statuses of objects; all of them mean "not now" to a device.
var objectStatus = map[fleet.Code]int{
	fleet.CodeNotFound: http.StatusNotFound,
	fleet.CodeBusy:     http.StatusServiceUnavailable,
}

// fail answers an error, which nobody may keep.
func (o *Objects) fail(w http.ResponseWriter, r *http.Request, err error) {
	code := fleet.CodeOf(err)
	status := objectStatus[code]
	message := "no such object"
	switch status {
	case 0:
		if r.Context().Err() == nil {
			o.c.Log.ErrorContext(r.Context(), "an object can't be served", "error", err)
		}
		code, status, message = fleet.CodeInternal, http.StatusInternalServerError, "internal error"
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(5+rand.IntN(26)))
		message = "the server is busy"
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`{"error":"` + message + `","code":"` + string(code) + `"}`)) // all ours: nothing to escape
}
