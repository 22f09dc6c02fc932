package derive_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/derive"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/ingest"
	"github.com/runnel-fota/runnel/internal/store/sqlite"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/release/releasetest"
)

const product = "acme/pump"

var ctx = context.Background()

// world is a server's insides, on a real disk and a real database.
type world struct {
	*testing.T
	store  *sqlite.Store
	blobs  *dir.Dir
	intake *ingest.Service
	clock  time.Time
	log    bytes.Buffer
	seed   fleet.Key
	list   uint32
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, clock: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), seed: fleet.Key{9}}
	path := t.TempDir()
	var err error
	if w.store, err = sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(path, "runnel.db")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	if w.blobs, err = dir.Open(dir.Options{Path: filepath.Join(path, "blobs"), Reserve: -1}); err != nil {
		t.Fatal(err)
	}
	w.intake = ingest.New(ingest.Options{Blobs: w.blobs, Releases: w.store, Signed: w.store, Derivations: w.store, Now: w.now,
		Stage: func(ctx context.Context, room int64) (ingest.Staged, error) { return w.blobs.Stage(ctx, room) }})
	if _, err := w.store.AddStreamKey(ctx, w.seed, false, w.now()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) now() time.Time { return w.clock }

func (w *world) runner(maker string) *derive.Runner {
	return &derive.Runner{Store: w.store, Open: w.blobs.Open, Publish: w.intake.AddDerived, Log: slog.New(slog.NewTextHandler(&w.log, nil)), Now: w.now,
		Maker: maker, Bases: 4, MinSaving: 0.2, MaxImage: 1 << 20}
}

// publish publishes the next key list: with the server's key, or without.
func (w *world) publish(server bool) {
	w.Helper()
	w.list++
	l := releasetest.List(w.list, product)
	if server {
		l.Keys = append(l.Keys, release.Key{Public: ed25519.NewKeyFromSeed(w.seed[:]).Public().(ed25519.PublicKey), Roles: manifest.RoleStream})
	}
	if _, _, err := w.intake.AddKeyList(ctx, releasetest.SealList(w, l)); err != nil {
		w.Fatal(err)
	}
}

// code is an image of words that repeat, as code does.
func code(edits uint64) []byte {
	r := rand.New(rand.NewPCG(1, 1))
	words := make([][]byte, 200)
	for i := range words {
		words[i] = fmt.Appendf(nil, "word %x;", r.Uint64())
	}
	var b []byte
	for len(b) < 40_000 {
		b = append(b, words[r.IntN(len(words))]...)
	}
	r = rand.New(rand.NewPCG(edits, 2))
	for range edits {
		b[r.IntN(len(b))] ^= byte(1 + r.IntN(255))
	}
	return b
}

func (w *world) push(version string, sequence uint32, image []byte) fleet.Release {
	w.Helper()
	m := releasetest.Manifest(w, product, version, image)
	m.Sequence = sequence
	file := releasetest.File(w, nil, m, image, nil)
	r, created, err := w.intake.PublishRelease(ctx, bytes.NewReader(file), int64(len(file)), fleet.Publication{})
	if err != nil || !created {
		w.Fatal(created, err)
	}
	return r
}

// device adds one that runs r's image and takes patches.
func (w *world) device(id string, r fleet.Release) {
	w.Helper()
	if err := w.store.AddNativeDevice(ctx, fleet.Device{ID: id, Product: product}, fleet.Key([]byte(fmt.Sprintf("%-32s", id))), nil, w.now()); err != nil {
		w.Fatal(err)
	}
	a := fleet.NativeAsk{Wire: fleet.WireSigned, Hardware: []byte("board-1"), Slots: []uint32{1 << 20, 1 << 20}, Envelope: 1400, Chunk: 4096, Epoch: 1, Sequence: r.Sequence,
		Image: r.Image.Digest[:], Derived: fleet.Derived{Version: 1, Profiles: 1 << 1, RAM: 16384}}
	if _, err := w.store.TakePoll(ctx, fleet.NativeChange{Device: id, Nonce: 1, Now: w.now(), Facts: fleet.NativeFacts{Ask: a.Text()}}); err != nil {
		w.Fatal(err)
	}
}

// drain ticks until there is nothing to do, and says how often there was.
func (w *world) drain(r *derive.Runner) (n int) {
	w.Helper()
	for {
		w.clock = w.clock.Add(10 * time.Second)
		worked, err := r.Tick(ctx)
		if err != nil {
			w.Fatal(err)
		}
		if !worked {
			return n
		}
		if n++; n > 10 {
			w.Fatal("there is no end")
		}
	}
}

// has wants the release's derivations and derived streams: state base:devices, in the order
// of bases.
func (w *world) has(r fleet.Release, streams int, want string) []fleet.Derivation {
	w.Helper()
	list, err := w.store.ListDerivations(ctx, r.ID)
	if err != nil {
		w.Fatal(err)
	}
	var got []string
	for _, d := range list {
		got = append(got, fmt.Sprintf("%s:%d", d.State, d.Devices))
	}
	all, err := w.store.Streams(ctx, r.ID)
	if err != nil {
		w.Fatal(err)
	}
	n := 0
	for _, m := range all {
		if m.Kind != fleet.StreamRaw {
			n++
			if !m.Proven {
				w.Errorf("%+v is not proven", m)
			}
			if err := w.blobs.Verify(ctx, m.Digest); err != nil {
				w.Error(err)
			}
		}
	}
	if strings.Join(got, " ") != want || n != streams {
		w.Errorf("%q, %d streams; want %q, %d; log: %s", got, n, want, streams, &w.log)
	}
	return list
}

// The server makes what its fleet is short of, and a device is offered it.
func TestRunner(t *testing.T) {
	w := newWorld(t)
	r := w.runner("one")
	if n := w.drain(r); n != 0 {
		t.Error("work without a key list")
	}
	w.publish(false)
	old := w.push("1.0", 1, code(0))
	w.device("a", old)
	w.device("b", old)
	next := w.push("1.1", 2, code(30))
	if n := w.drain(r); n != 0 {
		t.Error("work for a product whose streams the server may not sign")
	}
	w.publish(true)
	if n := w.drain(r); n != 1 {
		t.Errorf("%d pieces of work", n)
	}
	d := w.has(next, 1, "made:2")[0]
	if d.Base != old.Image.Digest || d.Profile != 1 || d.Sent == 0 || d.Percent != 100 {
		t.Errorf("%+v", d)
	}
	if n := w.drain(r); n != 0 {
		t.Error("the same work again")
	}
	// A device that runs what nobody knows gets the compressed image, from the next count on.
	stranger := old
	stranger.Image.Digest[0]++
	w.device("c", stranger)
	if n := w.drain(r); n != 0 {
		t.Error("counted too early")
	}
	w.clock = w.clock.Add(10 * time.Minute)
	if n := w.drain(r); n != 1 {
		t.Errorf("%d pieces of work", n)
	}
	w.has(next, 2, "made:1 made:2")
	// The next release, from both.
	w.device("d", next)
	third := w.push("1.2", 3, code(60))
	if n := w.drain(r); n != 3 {
		t.Errorf("%d pieces of work", n)
	}
	w.has(third, 3, "made:1 made:2 made:1")
	// Swept, nothing of it is gone.
	if removed, faults, err := w.intake.Sweep(ctx); removed != 0 || len(faults) != 0 || err != nil {
		t.Error(removed, faults, err)
	}
	// The key list drops the key: what it signed is offered to nobody, and made anew once there is another.
	w.publish(false)
	s, err := w.store.NativeSnapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(fleet.NewNativeOffers(s).Shorts([]fleet.AskCount{{Product: product, Ask: askOf(t, w, "a"), Devices: 1}}, func(fleet.Digest) bool { return true }, []fleet.Coder{{Profile: 1}}, 4)); got != 1 {
		t.Errorf("%d short", got)
	}
	w.drain(r)
	if w.seed, err = w.store.AddStreamKey(ctx, fleet.Key{10}, true, w.now()); err != nil {
		t.Fatal(err)
	}
	w.publish(true)
	if n := w.drain(r); n != 3 {
		t.Errorf("%d pieces of work", n)
	}
	w.has(third, 3, "made:1 made:2 made:1")
}

func askOf(t *testing.T, w *world, id string) string {
	d, err := w.store.Device(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return d.Ask
}

// What saves too little, is too large or fails is said, and left alone.
func TestRunnerDrops(t *testing.T) {
	w := newWorld(t)
	w.publish(true)
	noise := make([]byte, 40_000)
	rand.NewChaCha8([32]byte{4}).Read(noise)
	old := w.push("1.0", 1, code(0))
	w.device("a", old)
	next := w.push("1.1", 2, noise)
	r := w.runner("one")
	if n := w.drain(r); n != 1 {
		t.Errorf("%d pieces of work", n)
	}
	if d := w.has(next, 0, "dropped:1")[0]; d.Sent < 40_000 || !strings.Contains(d.Reason, "saves less than 20 %") {
		t.Errorf("%+v", d)
	}
	r.MaxImage = 1000
	third := w.push("1.2", 3, code(9))
	w.drain(r)
	if d := w.has(third, 0, "dropped:1")[0]; !strings.Contains(d.Reason, "larger than") {
		t.Errorf("%+v", d)
	}
	// One that fails is tried three times, with time in between.
	r.MaxImage = 1 << 20
	fourth := w.push("1.3", 4, code(12))
	publish := r.Publish
	r.Publish = func(context.Context, fleet.Derivation, string, string, fleet.Stream, []byte) (bool, error) {
		return false, fleet.Errorf(fleet.CodeNoSpace, "the disk is full")
	}
	for range fleet.MaxDerivationTries {
		if n := w.drain(r); n != 1 {
			t.Errorf("%d pieces of work", n)
		}
		if d := w.has(fourth, 0, "failed:1")[0]; d.Reason != "the disk is full" {
			t.Errorf("%+v", d)
		}
		w.clock = w.clock.Add(10 * time.Minute)
	}
	r.Publish = publish
	if n := w.drain(r); n != 0 {
		t.Errorf("%d pieces of work", n)
	}
	w.has(fourth, 0, "failed:1")
}

// A server that is killed loses its work, and no more: whoever comes next does it again,
// once the lease has ended. Two that live share it.
func TestRunnerLeases(t *testing.T) {
	w := newWorld(t)
	w.publish(true)
	old := w.push("1.0", 1, code(0))
	w.device("a", old)
	next := w.push("1.1", 2, code(30))
	one, two := w.runner("one"), w.runner("two")
	// The first is killed with the work done and not published.
	killed, kill := context.WithCancel(ctx)
	one.Publish = func(context.Context, fleet.Derivation, string, string, fleet.Stream, []byte) (bool, error) {
		kill()
		return false, killed.Err()
	}
	if worked, err := one.Tick(killed); !worked || err != nil {
		t.Error(worked, err)
	}
	w.has(next, 0, "making:1")
	if n := w.drain(two); n != 0 {
		t.Error("the other took it before the lease ended")
	}
	w.clock = w.clock.Add(time.Minute)
	if n := w.drain(two); n != 1 {
		t.Errorf("%d pieces of work", n)
	}
	w.has(next, 1, "made:1")
	// The first one's late word changes nothing, and leaves no file.
	d := w.has(next, 1, "made:1")[0]
	late := fleet.Stream{Kind: fleet.StreamPatch, Chunk: 2048, Length: 4, Sheet: sheetOf(t, next)}
	copy(late.Digest[:], sum("late"))
	if published, err := w.intake.AddDerived(ctx, d, "one", product, late, []byte("late")); published || err != nil {
		t.Error(published, err)
	}
	if _, err := w.blobs.Open(ctx, late.Digest); fleet.CodeOf(err) != fleet.CodeNotFound {
		t.Errorf("the late one's file is there: %v", err)
	}
}

// sheetOf is a sheet that the key list lets count.
func sheetOf(t *testing.T, r fleet.Release) []byte {
	t.Helper()
	return releasetest.Seal(t, manifest.KindSheet, &release.Sheet{ImageRoot: release.Hash(r.Image.Digest), Kind: manifest.StreamCompressed, Profile: 1, RAM: 1, Length: 4, Chunk: 2048}, "stream")
}

func sum(text string) []byte {
	d := sha256.Sum256([]byte(text))
	return d[:]
}
