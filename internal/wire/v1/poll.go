package v1

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// stampLayout is uploaded_at: ISO 8601, UTC, whole seconds. It sorts as text and
// every fielded client that looks at it compares it as text or parses this form.
const stampLayout = "2006-01-02T15:04:05Z"

// manifest is the wire's; its order is the original's.
type manifest struct {
	Version     string `json:"version"`
	Size        int64  `json:"size"`
	Hash        string `json:"hash"`
	ChunkSize   int    `json:"chunk_size"`
	UploadedAt  string `json:"uploaded_at"`
	TotalChunks int    `json:"total_chunks"`
}

func manifestOf(r *fleet.Release, stamp time.Time) manifest {
	return manifest{Version: r.Version, Size: r.Image.Size, Hash: r.Image.Digest.String(), ChunkSize: r.ChunkSize,
		UploadedAt: stamp.UTC().Format(stampLayout), TotalChunks: r.Chunks()}
}

type offerBody struct {
	Fota struct {
		Manifest manifest `json:"manifest"`
	} `json:"fota"`
}

// checkWire refuses a device that has spoken a stronger wire since it was read into
// memory, to another process maybe. Chunks are the one thing that it may get until
// this is noticed.
func (s *Server) checkWire(ctx context.Context, dev fleet.Device) error {
	if !fleet.WireV1.WeakerThan(dev.StrongestWire) {
		return nil
	}
	if err := s.devices.forget(ctx, dev.ID); err != nil {
		return err
	}
	return errWho
}

// decide asks the domain what the device may get now, by one statement. A device that comes
// into a rollout by that is written down first; where it can't, it gets nothing this time.
func (s *Server) decide(ctx context.Context, cat *releases, dev *device) (fleet.Decision, error) {
	n, err := s.state(ctx, dev, cat.Wanted(fleet.Device{Product: dev.product}))
	if err == nil {
		err = s.checkWire(ctx, n.Device)
	}
	if err != nil {
		return fleet.Decision{}, err
	}
	n.Assurance = dev.assurance
	now := s.c.Now()
	out := cat.Decide(&n, now, nil)
	if out.Admit == nil {
		return out, nil
	}
	refused, err := s.c.Rollouts.Admit(context.WithoutCancel(ctx), dev.id, *out.Admit, fleet.KeptDecision{At: now, Verdict: out.Verdict, Rollout: out.Rollout, Version: out.Release.Version, Why: out.Why})
	if err != nil || refused {
		return fleet.Decision{}, err
	}
	return out, nil
}

// state reads what a decision rests on.
func (s *Server) state(ctx context.Context, dev *device, want fleet.Wanted) (n fleet.NativeDevice, err error) {
	if s.c.Rollouts != nil {
		return s.c.Rollouts.NativePoll(ctx, dev.id, want)
	}
	if n.Device, err = s.c.Devices.Device(ctx, dev.id); err != nil || len(want.Releases) == 0 {
		return n, err
	}
	d, err := s.c.Deployments.DeploymentOf(ctx, dev.id, want.Releases[0])
	switch fleet.CodeOf(err) {
	case "":
		n.Deployments = append(n.Deployments, d)
	case fleet.CodeNotFound:
		err = nil
	}
	return n, err
}

func (s *Server) manifest(w http.ResponseWriter, r *http.Request, c caller) error {
	cat, err := s.cat.get(r.Context(), c.generation)
	if err != nil {
		return err
	}
	d, err := s.decide(r.Context(), cat, c.dev)
	if err != nil {
		return err
	}
	if d.Release == nil {
		if err := s.setOffer(r.Context(), c.dev, 0, cat.generation); err != nil {
			return err
		}
		writeBody(w, http.StatusOK, []byte("{}"))
		return nil
	}
	if err := s.setOffer(r.Context(), c.dev, d.Release.ID, cat.generation); err != nil {
		return err
	}
	var b offerBody
	b.Fota.Manifest = manifestOf(d.Release, d.PublishedAt)
	writeJSON(w, http.StatusOK, b)
	return nil
}

// offered is the release whose chunks the device gets: that of its last poll.
// After a restart of the server it is the one that it was downloading, else what
// it would be offered.
func (s *Server) offered(ctx context.Context, c caller) (*fleet.Release, error) {
	dev := c.dev
	cat, err := s.cat.get(ctx, c.generation)
	if err != nil {
		return nil, err
	}
	if s.c.Replicas != nil && !c.proven {
		dev.setOffer(fleet.V1Offer{}) // a silent one's poll may have been another server's
	}
	if id, asked := dev.lastOffer(cat.generation); asked {
		return cat.going(id), nil
	}
	var rel *fleet.Release
	dep, err := s.c.Deployments.Deployment(ctx, dev.id)
	switch fleet.CodeOf(err) {
	case "":
		if dep.State == fleet.StateDownloading {
			rel = cat.published(dep.ReleaseID)
		}
	case fleet.CodeNotFound:
	default:
		return nil, err
	}
	if rel == nil {
		d, err := s.decide(ctx, cat, dev)
		if err != nil {
			return nil, err
		}
		rel = d.Release
	}
	var id int64
	if rel != nil {
		id = rel.ID
	}
	if err := s.setOffer(ctx, dev, id, cat.generation); err != nil {
		return nil, err
	}
	return cat.going(id), nil
}

// answers are the buffers of chunks' answers on their way out.
var answers = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

// Values of headers, shared by all answers.
var (
	jsonType = []string{"application/json"}
	noStore  = []string{"no-store"}
)

func (s *Server) chunk(w http.ResponseWriter, r *http.Request, c caller) error {
	rel, err := s.offered(r.Context(), c)
	if err != nil {
		return err
	}
	if rel == nil {
		chunkNotFound(w)
		return nil
	}
	if !c.dev.hasKey {
		// Only a silent device gets here without a key: the others proved theirs.
		return fleet.Errorf(fleet.CodeForbidden, "the device has no key to sign chunks with")
	}
	want, err := parseChunk(r.URL.RawQuery, rel.ChunkSize)
	if err != nil {
		return err
	}
	p, err := s.images.get(r.Context(), rel)
	if err != nil {
		return err
	}
	var data, text []byte
	if want.number >= 0 {
		data, text = p.chunk(uint64(want.number))
	} else if want.offset < int64(len(p.image)) {
		data = p.image[want.offset:min(want.offset+want.size, int64(len(p.image)))]
		want.number = want.offset / int64(rel.ChunkSize)
	}
	if len(data) == 0 {
		chunkNotFound(w)
		return nil
	}
	buf := answers.Get().(*[]byte)
	b := append((*buf)[:0], `{"chunk_number":`...)
	b = strconv.AppendInt(b, want.number, 10)
	b = append(b, `,"data":"`...)
	if text != nil {
		b = append(b, text...)
	} else {
		b = base64.StdEncoding.AppendEncode(b, data)
	}
	b = append(b, `","mac":"`...)
	at := len(b)
	b = appendMAC(b, &c.dev.key, data)
	// Some clients read hmac.
	b = append(b, `","hmac":"`...)
	b = append(b, b[at:at+64]...)
	b = append(b, `","size":`...)
	b = strconv.AppendInt(b, int64(len(data)), 10)
	b = append(b, '}')
	h := w.Header()
	h["Content-Type"] = jsonType
	// Two releases have the same URLs, and two devices: a cache would mix them.
	h["Cache-Control"] = noStore
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	_, _ = w.Write(b) // who hung up asks again
	*buf = b
	answers.Put(buf)
	return nil
}

func chunkNotFound(w http.ResponseWriter) {
	writeError(w, http.StatusNotFound, string(fleet.CodeNotFound), "Chunk not found")
}

// span is what a chunk's request asks for: number, or where that is negative size
// bytes from offset.
type span struct{ number, offset, size int64 }

// parseChunk reads ?chunk_number=N, ?chunk=N or ?offset=B&size=S. Fifteen digits
// are far past every end and fit an int64.
func parseChunk(rawQuery string, chunkSize int) (span, error) {
	const digits = 15
	bad := func(what string) (span, error) {
		return span{}, fleet.Errorf(fleet.CodeInvalid, "%s", what)
	}
	// The form that nearly all send, without a map.
	const name = "chunk_number="
	if len(rawQuery) > len(name) && rawQuery[:len(name)] == name {
		if n, ok := parseDecimal(rawQuery[len(name):], digits); ok {
			return span{number: int64(n)}, nil
		}
	}
	q, err := url.ParseQuery(rawQuery)
	if err != nil {
		return bad("the query is malformed")
	}
	one := func(key string) (int64, bool) {
		n, ok := parseDecimal(q.Get(key), digits)
		return int64(n), ok && len(q[key]) == 1
	}
	for _, key := range []string{"chunk_number", "chunk"} {
		if q.Has(key) {
			n, ok := one(key)
			if !ok {
				return bad(key + " is not a chunk's number")
			}
			return span{number: n}, nil
		}
	}
	if !q.Has("offset") {
		return bad("chunk_number is missing")
	}
	off, ok := one("offset")
	if !ok {
		return bad("offset is not a number of bytes")
	}
	size := int64(chunkSize)
	if q.Has("size") {
		if size, ok = one("size"); !ok || size == 0 {
			return bad("size is not a number of bytes")
		}
	}
	if size > fleet.MaxChunkSize {
		return bad("size is larger than any chunk")
	}
	return span{number: -1, offset: off, size: size}, nil
}

type rollbackBody struct {
	Required bool   `json:"rollback_required"`
	Reason   string `json:"reason,omitempty"`
}

func (s *Server) rollbackStatus(w http.ResponseWriter, r *http.Request, c caller) error {
	dev, err := s.c.Devices.Device(r.Context(), c.dev.id)
	if err == nil {
		err = s.checkWire(r.Context(), dev)
	}
	if err != nil {
		return err
	}
	// What a MAC proved may not be written yet: without it the device would pass for a silent one.
	dev.Signed = dev.Signed || c.dev.hasProven()
	now := s.c.Now()
	// Who speaks without a MAC in the name of a device that has one must not use up its order.
	if !fleet.RollbackDue(dev, now) || !c.proven && dev.Signed {
		writeJSON(w, http.StatusOK, rollbackBody{})
		return nil
	}
	// Noted first: an order that was noted and got lost is repeated.
	if err := s.c.Orders.RollbackSent(r.Context(), dev.ID, now); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, rollbackBody{true, dev.RollbackReason})
	return nil
}

func (d *device) hasProven() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.signed
}
