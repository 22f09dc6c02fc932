package native

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/manifest"
	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/opentest"
	"github.com/runnel-fota/runnel/release"
)

const product = "acme/pump"

// rig is a server over a real store, with a clock that only the test moves.
type rig struct {
	t      testing.TB
	path   string
	store  *opentest.Store
	server *Server
	mux    *http.ServeMux
	log    bytes.Buffer
	change func(*Config)
	lists  uint32

	mu    sync.Mutex
	clock time.Time
}

func (w *rig) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *rig) advance(d time.Duration) {
	w.mu.Lock()
	w.clock = w.clock.Add(d)
	w.mu.Unlock()
}

func TestMain(m *testing.M) { os.Exit(opentest.Main(m)) }

func newRig(t testing.TB, change func(*Config)) *rig {
	w := &rig{t: t, path: filepath.Join(t.TempDir(), "runnel.db"), clock: time.Date(2026, 11, 23, 18, 54, 47, 0, time.UTC), change: change}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *rig) open() {
	w.t.Helper()
	w.store = opentest.Open(w.t, w.path, [32]byte{9})
	w.server, w.mux = w.replica()
}

func (w *rig) close() {
	if w.store == nil {
		return
	}
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
	w.store = nil
}

// restart ends the process as a kill does, but for the database: what is in memory alone is lost.
func (w *rig) restart() {
	w.t.Helper()
	w.close()
	w.open()
}

// replica is one more server on the same store.
func (w *rig) replica() (*Server, *http.ServeMux) {
	c := Config{Replicas: w.store.Replicas, Devices: w.store, Catalogue: w.store, KeyLists: w.store, Enroller: w.store, Now: w.now, Log: slog.New(slog.NewTextHandler(&w.log, nil))}
	if w.change != nil {
		w.change(&c)
	}
	s, mux := New(c), http.NewServeMux()
	s.Register(mux)
	return s, mux
}

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("runnel test key, known to everybody: " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

type encoder interface{ Encode() ([]byte, error) }

func (w *rig) sign(kind manifest.Kind, e encoder, key string) []byte {
	w.t.Helper()
	p, err := e.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	envelope, err := release.Sign(context.Background(), kind, p, release.NewKeySigner(testKey(key)))
	if err != nil {
		w.t.Fatal(err)
	}
	return envelope
}

// keyList stores the next key list.
func (w *rig) keyList(epoch, floor uint32) {
	w.t.Helper()
	w.lists++
	l := &release.KeyList{Version: w.lists, Generation: 1, M: 1, Roots: []ed25519.PublicKey{testKey("root").Public().(ed25519.PublicKey)},
		Keys:     []release.Key{{Public: testKey("release").Public().(ed25519.PublicKey), Roles: manifest.RoleRelease}},
		Products: []release.Product{{Name: product, Threshold: 1, Epoch: epoch, Floor: floor}}}
	w.ok(w.store.AddKeyList(context.Background(), fleet.KeyList{Version: l.Version, Generation: 1, Envelope: w.sign(manifest.KindKeys, l, "root")}, w.lists-1, []string{product}, w.now()))
}

func (w *rig) ok(_ any, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// publish stores a signed release of an image of 5,000 bytes with chunks of 1,024
// and 4,096; change may alter the manifest.
func (w *rig) publish(version string, sequence uint32, change func(*release.Manifest)) fleet.Release {
	w.t.Helper()
	return w.publishAs(version, version, sequence, change)
}

// publishAs publishes an image that is filled with content.
func (w *rig) publishAs(version, content string, sequence uint32, change func(*release.Manifest)) fleet.Release {
	w.t.Helper()
	image := bytes.Repeat([]byte(content+" "), 5000)[:5000]
	m := &release.Manifest{Product: product, Hardware: [][]byte{[]byte("r2")}, Version: version, Epoch: 1, Sequence: sequence, SecurityVersion: 1,
		Confirm: release.Confirm{Contact: true, Seconds: 300},
		Image:   release.Image{Component: "app", Format: manifest.FormatRaw, Digest: sha256.Sum256(image), Size: uint32(len(image))}}
	var streams []fleet.Stream
	for _, chunk := range []uint32{1024, 4096} {
		root, file, length, err := release.BuildStream(io.Discard, bytes.NewReader(image), uint32(len(image)), chunk)
		if err != nil {
			w.t.Fatal(err)
		}
		m.Image.Streams = append(m.Image.Streams, release.Raw{Chunk: chunk, Root: root})
		streams = append(streams, fleet.Stream{Digest: file, Kind: fleet.StreamRaw, Chunk: chunk, Length: length, Root: root})
	}
	if change != nil {
		change(m)
	}
	rel := fleet.Release{Product: m.Product, Version: version, ChunkSize: 1024, Epoch: m.Epoch, Sequence: m.Sequence,
		SecurityVersion: m.SecurityVersion, Hardware: "r2", Image: fleet.Image{Digest: fleet.Digest(m.Image.Digest), Size: int64(len(image))}}
	if s := m.Image.Slot; s != nil {
		rel.HasSlot, rel.Slot = true, *s
	}
	r, _, err := w.store.PublishSigned(context.Background(), rel,
		w.sign(manifest.KindManifest, m, "release"), streams, w.newestList(), w.now())
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// board is the device's side: what it sends and what it believes.
type board struct {
	w      *rig
	mux    *http.ServeMux // nil: the rig's
	id     string
	keys   core.Keys
	poll   core.Poll
	number uint32
}

func secretOf(name string) [32]byte { return sha256.Sum256([]byte("secret of " + name)) }

// board adds a device and answers it as it is after its first boot.
func (w *rig) board(id string) *board {
	w.t.Helper()
	w.ok(nil, w.store.AddNativeDevice(context.Background(), fleet.Device{ID: id, Product: product}, fleet.Key(secretOf(id)), nil, w.now()))
	return w.device(id, secretOf(id), 0)
}

func (w *rig) device(id string, secret [32]byte, key uint8) *board {
	b := &board{w: w, id: id, poll: core.Poll{Device: []byte(id), Key: key, Hardware: []byte("r2"), Version: []byte("0.9"), Boot: 1, Envelope: 1400, Chunk: 4096,
		Profile: core.ProfileSigned, SlotCount: 2, Running: 0, Random: []byte("8 random")}}
	b.poll.Slots[0], b.poll.Slots[1] = 1<<20, 1<<20
	var run digest.SHA256
	b.keys.Derive(&secret, &run)
	return b
}

func (b *board) mac() core.MAC { return softMAC(&b.keys) }

func (w *rig) post(mux *http.ServeMux, path string, body []byte) *httptest.ResponseRecorder {
	if mux == nil {
		mux = w.mux
	}
	r := httptest.NewRequest("POST", path, bytes.NewReader(body))
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, r)
	if rec.Code != http.StatusOK && rec.Body.Len() != 0 {
		w.t.Errorf("status %d with a body: %q", rec.Code, rec.Body)
	}
	if c := rec.Header().Get("Cache-Control"); c != "no-store" {
		w.t.Errorf("Cache-Control %q", c)
	}
	return rec
}

// body is the next poll.
func (b *board) body() []byte {
	b.w.t.Helper()
	b.poll.Nonce++
	body, e := b.poll.Encode(make([]byte, core.MaxBody), b.mac())
	if e != 0 {
		b.w.t.Fatal(e)
	}
	return body
}

// answer is what the board makes of an answer to its latest poll.
func (b *board) answer(rec *httptest.ResponseRecorder) core.Answer {
	b.w.t.Helper()
	var a core.Answer
	if rec.Code != http.StatusOK {
		b.w.t.Fatalf("status %d; log: %s", rec.Code, &b.w.log)
	}
	if e := a.Decode(rec.Body.Bytes(), b.mac(), b.poll.Device, b.poll.Nonce, b.poll.Random); e != 0 {
		b.w.t.Fatal(e)
	}
	return a
}

// ask polls and wants the nonce to be taken.
func (b *board) ask() core.Answer {
	b.w.t.Helper()
	a := b.answer(b.w.post(b.mux, PathPoll, b.body()))
	if a.Highest >= b.poll.Nonce {
		b.w.t.Fatalf("nonce %d was not taken: highest is %d", b.poll.Nonce, a.Highest)
	}
	return a
}

func (b *board) offered(r fleet.Release) core.Answer {
	b.w.t.Helper()
	a := b.ask()
	if !a.HasOffer || a.Offer.Sequence != r.Sequence || !bytes.Equal(a.Offer.Manifest, r.ManifestDigest[:]) {
		b.w.t.Errorf("offer %v of %d, want %d", a.HasOffer, a.Offer.Sequence, r.Sequence)
	}
	return a
}

func (b *board) nothing() core.Answer {
	b.w.t.Helper()
	a := b.ask()
	if a.HasOffer {
		b.w.t.Errorf("offered %d", a.Offer.Sequence)
	}
	return a
}

// says is a report of a release, with the next number and nonce.
func (b *board) says(r fleet.Release, s core.State, reason uint16) core.Report {
	b.number++
	b.poll.Nonce++
	return core.Report{Device: b.poll.Device, Key: b.poll.Key, Nonce: b.poll.Nonce, Boot: b.poll.Boot, Number: b.number, Epoch: r.Epoch, Sequence: r.Sequence,
		Digest: r.Image.Digest[:], State: s, Reason: reason, Bytes: 2048}
}

func (b *board) send(m core.Report) *httptest.ResponseRecorder {
	b.w.t.Helper()
	body, e := m.Encode(make([]byte, core.MaxBody), b.mac())
	if e != 0 {
		b.w.t.Fatal(e)
	}
	return b.w.post(b.mux, PathReport, body)
}

func (b *board) acked(m core.Report, rec *httptest.ResponseRecorder) {
	b.w.t.Helper()
	var a core.Ack
	if rec.Code != http.StatusOK {
		b.w.t.Fatalf("status %d; log: %s", rec.Code, &b.w.log)
	}
	if e := a.Decode(rec.Body.Bytes(), b.mac(), b.poll.Device, m.Nonce, m.Boot, m.Number); e != 0 {
		b.w.t.Fatal(e)
	}
}

// report sends one and wants it acknowledged.
func (b *board) report(r fleet.Release, s core.State, reason uint16) core.Report {
	b.w.t.Helper()
	m := b.says(r, s, reason)
	b.acked(m, b.send(m))
	return m
}

func (w *rig) fleetDevice(id string) fleet.Device {
	w.t.Helper()
	d, err := w.store.Device(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *rig) deployment(id string) fleet.Deployment {
	w.t.Helper()
	d, err := w.store.Deployment(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// timeline is a device's events, oldest first, as name and text.
func (w *rig) timeline(id string) []string {
	w.t.Helper()
	events, _, err := w.store.Events(context.Background(), id, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	var list []string
	for i := len(events) - 1; i >= 0; i-- {
		list = append(list, events[i].Name+": "+events[i].Detail)
	}
	return list
}

// state is all that is stored of a device, as text.
func (w *rig) state(id string) string {
	w.t.Helper()
	d := w.fleetDevice(id)
	deps, err := w.store.ListDeployments(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprintf("%+v %+v %s", d, deps, strings.Join(w.timeline(id), "|"))
}

func (w *rig) flush() {
	w.t.Helper()
	w.ok(nil, w.server.Flush(context.Background()))
}

// newestList is the version of the newest key list, 0 where there is none.
func (w *rig) newestList() uint32 {
	w.t.Helper()
	l, err := w.store.NewestKeyList(context.Background())
	if err != nil && fleet.CodeOf(err) != fleet.CodeNotFound {
		w.t.Fatal(err)
	}
	return l.Version
}
