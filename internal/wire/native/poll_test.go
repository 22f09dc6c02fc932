package native

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/opentest"
)

func TestPoll(t *testing.T) {
	w := newRig(t, nil)
	b := w.board("pump-1")
	a := b.nothing()
	if a.ComeBack != 900 || a.Highest != 0 || a.ListVersion != 0 || a.Time != uint32(w.now().Unix()) {
		t.Errorf("%+v", a)
	}
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	a = b.offered(r)
	streams, _ := w.store.Streams(t.Context(), r.ID)
	if a.Offer.Chunk != 4096 || !bytes.Equal(a.Offer.Stream, streams[1].Digest[:]) || a.Offer.FileLength != uint64(streams[1].Length) || a.Offer.Epoch != 1 || a.ListVersion != 1 || a.ListGeneration != 1 {
		t.Errorf("%+v", a)
	}
	m, err := w.store.Manifest(t.Context(), fleet.Digest(a.Offer.Manifest))
	if err != nil || int(a.Offer.ManifestLength) != len(m.Envelope) {
		t.Errorf("%v: %d bytes, not %d", err, a.Offer.ManifestLength, len(m.Envelope))
	}
	d := w.fleetDevice("pump-1")
	if d.StrongestWire != fleet.WireSigned || d.Hardware != "r2" || d.RunningVersion != "0.9" || d.Assurance != fleet.AssuranceOwn {
		t.Errorf("%+v", d)
	}
	if p := w.deployment("pump-1"); p.State != fleet.StateOffered || !p.Proven {
		t.Errorf("%+v", p)
	}
	for range 3 { // the reason is written when it changes
		b.offered(r)
	}
	want := "device_added: with a native key|wire_raised: it speaks the native wire, signed: weaker ones are refused under its name|" +
		"offer: no signed release of acme/pump is published|offer: 1.0 is the newest release of acme/pump for its hardware"
	if got := strings.Join(w.timeline("pump-1"), "|"); got != want {
		t.Errorf("timeline\n%s, not\n%s", got, want)
	}
}

// An idle poll is one statement; what it taught is one more for each device, later.
func TestIdlePollIsOneStatement(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	b := w.board("pump-1")
	b.offered(r)
	w.flush()
	before := w.store.Statements()
	for i := range 5 {
		b.offered(r)
		if n := w.store.Statements() - before; n != int64(i+1) {
			t.Fatalf("%d statements for %d polls", n, i+1)
		}
	}
	nonce := w.fleetDevice("pump-1").NativeNonce
	w.advance(time.Minute)
	b.offered(r)
	w.flush()
	d := w.fleetDevice("pump-1")
	behind := uint64(1)
	if opentest.Postgres() {
		behind = b.poll.Nonce - 1 // each in its poll's statement
	}
	if nonce != behind || d.NativeNonce != b.poll.Nonce || !d.LastSeen.Equal(w.now()) {
		t.Errorf("stored nonce was %d, is %d of %d; seen %v", nonce, d.NativeNonce, b.poll.Nonce, d.LastSeen)
	}
	before = w.store.Statements()
	w.flush()
	if n := w.store.Statements() - before; n != 0 {
		t.Errorf("nothing to write, %d statements", n)
	}
}

// A replay changes nothing: here, after a restart, and on another replica. It is
// answered with the highest, and no board takes that for an answer of its own.
func TestReplayedPoll(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	b := w.board("pump-1")
	recorded := b.body()
	w.post(nil, PathPoll, recorded)
	r := w.publish("1.0", 7, nil)
	b.offered(r)
	b.report(r, core.StateFailed, 2)
	b.nothing()
	w.flush()
	before := w.state("pump-1")
	nonce := b.poll.Nonce
	for _, where := range []string{"here", "replica", "restarted"} {
		mux := w.mux
		if where == "replica" {
			_, mux = w.replica()
		}
		if where == "restarted" {
			w.restart()
			mux = w.mux
		}
		w.advance(time.Minute)
		rec := w.post(mux, PathPoll, recorded)
		var a core.Answer
		if e := a.Decode(rec.Body.Bytes(), b.mac(), b.poll.Device, 1, b.poll.Random); e != 0 || a.Highest != nonce || a.HasOffer {
			t.Errorf("%s: %v %+v", where, e, a)
		}
		if e := a.Decode(rec.Body.Bytes(), b.mac(), b.poll.Device, b.poll.Nonce, b.poll.Random); e != core.ErrOther {
			t.Errorf("%s: the board takes an old answer: %v", where, e)
		}
		w.flush()
		if got := w.state("pump-1"); got != before {
			t.Errorf("%s:\n%s\nbecame\n%s", where, before, got)
		}
	}
	// Nor is it an answer for one that counts again, with other random bits.
	again := w.device("pump-1", secretOf("pump-1"), 0)
	again.poll.Random = []byte("8 others")
	rec := w.post(nil, PathPoll, recorded)
	var a core.Answer
	if e := a.Decode(rec.Body.Bytes(), again.mac(), again.poll.Device, 1, again.poll.Random); e != core.ErrOther {
		t.Error(e)
	}
}

// Two replicas get the same poll that changes something: one does it.
func TestReplayRacesOnReplicas(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	b := w.board("pump-1")
	body := b.body()
	for range 3 {
		_, mux := w.replica()
		w.post(mux, PathPoll, body)
	}
	if n := strings.Count(strings.Join(w.timeline("pump-1"), "|"), fleet.EventOffer); n != 1 {
		t.Errorf("%d offers are noted", n)
	}
}

// A board that was flashed anew goes on above the highest, is heard, and its
// reports are new ones though they have old names.
func TestReflashed(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	b := w.board("pump-1")
	b.poll.Boot = 40
	b.offered(r)
	b.poll.Boot = 41
	b.report(r, core.StateDownloading, 0)
	b.offered(r)

	n := w.device("pump-1", secretOf("pump-1"), 0)
	a := n.answer(w.post(nil, PathPoll, n.body()))
	if a.Highest != b.poll.Nonce || a.HasOffer || a.ComeBack != 60 {
		t.Fatalf("%+v", a)
	}
	n.poll.Nonce = a.Highest
	n.offered(r)
	if !strings.Contains(strings.Join(w.timeline("pump-1"), "|"), "restarted: its counter of boots went from 41 to 1") {
		t.Error(w.timeline("pump-1"))
	}
	n.poll.Boot, n.number = 41, 0 // the same name, and the same words
	w.advance(time.Minute)
	n.report(r, core.StateDownloading, 0)
	if p := w.deployment("pump-1"); !p.UpdatedAt.Equal(w.now()) {
		t.Errorf("%+v", p)
	}
}

// What was withdrawn before a poll began does not reach it.
func TestWithdrawnBetweenPolls(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r1, r2 := w.publish("1.0", 7, nil), w.publish("2.0", 8, nil)
	b := w.board("pump-1")
	b.offered(r2)
	b.poll.InProgress, b.poll.Progress = 8, 2048
	if a := b.offered(r2); a.Cancel != 0 {
		t.Errorf("%+v", a)
	}
	w.ok(w.store.Withdraw(t.Context(), r2.ID, w.now()))
	if a := b.offered(r1); a.Cancel != 8 {
		t.Errorf("%+v", a)
	}
	w.ok(w.store.Withdraw(t.Context(), r1.ID, w.now()))
	if a := b.nothing(); a.Cancel != 8 {
		t.Errorf("%+v", a)
	}
	b.report(r2, core.StateCancelled, 29)
	b.poll.InProgress, b.poll.Progress = 0, 0
	if a := b.nothing(); a.Cancel != 0 {
		t.Errorf("%+v", a)
	}
	if p := w.deployment("pump-1"); p.State != fleet.StateCancelled || !strings.Contains(p.Reason, "reason 29") {
		t.Errorf("%+v", p)
	}
	// A key list with a floor above it, while nobody restarts anything.
	r3 := w.publish("3.0", 9, nil)
	b.offered(r3)
	w.keyList(1, 2)
	if a := b.nothing(); a.ListVersion != 2 {
		t.Errorf("%+v", a)
	}
}

// Unknown, another's key, a number that does not live, a body that was changed: one
// answer, byte for byte.
func TestOneAnswerForStrangers(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	b := w.board("pump-1")
	w.ok(nil, w.store.AddDevice(t.Context(), fleet.Device{ID: "v1-only"}, &fleet.Key{1}, w.now()))
	b.offered(r)
	w.flush()
	before := w.state("pump-1")
	text := func(path string, body []byte) string {
		rec := w.post(nil, path, body)
		return fmt.Sprint(rec.Code, rec.Header(), rec.Body)
	}
	poll := func(id, key string, number uint8) []byte { return w.device(id, secretOf(key), number).body() }
	report := func(id, key string, number uint8) []byte {
		d := w.device(id, secretOf(key), number)
		m := d.says(r, core.StateFailed, 1)
		body, e := m.Encode(make([]byte, core.MaxBody), d.mac())
		if e != 0 {
			t.Fatal(e)
		}
		return body
	}
	changed := b.body()
	changed[len(changed)-40] ^= 1
	kind := b.body() // a poll is no report
	want := text(PathPoll, poll("nobody", "nobody", 0))
	if !strings.HasPrefix(want, "401 ") {
		t.Fatal(want)
	}
	for name, got := range map[string]string{
		"wrong key":            text(PathPoll, poll("pump-1", "other", 0)),
		"no such number":       text(PathPoll, poll("pump-1", "pump-1", 1)),
		"v1 key only":          text(PathPoll, poll("v1-only", "v1-only", 0)),
		"zero secret":          text(PathPoll, func() []byte { return w.device("nobody", [32]byte{}, 0).body() }()),
		"changed":              text(PathPoll, changed),
		"poll as report":       text(PathReport, kind),
		"report, unknown":      text(PathReport, report("nobody", "nobody", 0)),
		"report, wrong key":    text(PathReport, report("pump-1", "other", 0)),
		"report, other number": text(PathReport, report("pump-1", "pump-1", 9)),
	} {
		if got != want {
			t.Errorf("%s: %s, not %s", name, got, want)
		}
	}
	w.flush()
	if got := w.state("pump-1"); got != before {
		t.Errorf("%s\nbecame\n%s", before, got)
	}
}

// Bodies have bounds, and what names nobody is malformed for everybody.
func TestBodies(t *testing.T) {
	w := newRig(t, nil)
	b := w.board("pump-1")
	short := bytes.Repeat([]byte{0xA1}, 20)
	for _, c := range []struct {
		name string
		body []byte
		want int
	}{
		{"empty", nil, 400},
		{"short", short, 400},
		{"not CBOR", bytes.Repeat([]byte{0xFF}, 200), 400},
		{"1,025 bytes", make([]byte, core.MaxBody+1), 413},
		{"1,024 bytes", make([]byte, core.MaxBody), 400},
		{"whole", b.body(), 200},
	} {
		if rec := w.post(nil, PathPoll, c.body); rec.Code != c.want {
			t.Errorf("%s: %d, not %d", c.name, rec.Code, c.want)
		}
	}
	// Without a length, as chunks.
	r, _ := http.NewRequest("POST", PathPoll, struct{ *bytes.Reader }{bytes.NewReader(make([]byte, 2000))})
	if _, err := readMessage(nopWriter{}, r, make([]byte, core.MaxBody)); fleet.CodeOf(err) != fleet.CodeTooLarge {
		t.Error(err)
	}
}

type nopWriter struct{}

func (nopWriter) Header() http.Header         { return http.Header{} }
func (nopWriter) Write(p []byte) (int, error) { return len(p), nil }
func (nopWriter) WriteHeader(int)             {}

// While a key is exchanged both live; with the first poll under the new one the old is gone.
func TestKeyRotation(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	old := w.board("pump-1")
	old.ask()
	n, err := w.store.AddNativeKey(t.Context(), "pump-1", fleet.Key(secretOf("next")), w.now())
	if err != nil || n != 1 {
		t.Fatal(n, err)
	}
	old.ask()
	next := w.device("pump-1", secretOf("next"), 1)
	_, elsewhere := w.replica()
	old.mux = elsewhere
	old.ask() // in memory there too
	next.poll.Nonce = old.poll.Nonce
	next.ask()
	for name, mux := range map[string]*http.ServeMux{"here": w.mux, "replica": elsewhere} {
		old.poll.Nonce += 100
		if rec := w.post(mux, PathPoll, old.body()); rec.Code != http.StatusUnauthorized {
			t.Errorf("%s: the old key polls: %d", name, rec.Code)
		}
		m := old.says(fleet.Release{}, core.StateFailed, 1)
		body, _ := m.Encode(make([]byte, core.MaxBody), old.mac())
		if rec := w.post(mux, PathReport, body); rec.Code != http.StatusUnauthorized {
			t.Errorf("%s: the old key reports: %d", name, rec.Code)
		}
	}
	next.mux = elsewhere
	next.ask()
	w.restart()
	next.mux = nil
	next.ask()
	if d := w.fleetDevice("pump-1"); d.NativeKeys != 1 {
		t.Errorf("%+v", d)
	}
}

// A weaker profile under the same name is refused like a stranger, noted once, and
// heard again when an operator says so.
func TestWeakerProfile(t *testing.T) {
	w := newRig(t, nil)
	raised := 0
	w.change = func(c *Config) { c.WireRaised = func(string) { raised++ } }
	w.server, w.mux = w.replica()
	w.keyList(1, 0)
	b := w.board("pump-1")
	b.poll.Profile = core.ProfileMACOnly
	b.ask()
	b.poll.Profile = core.ProfileSigned
	b.ask()
	b.ask()
	if raised != 2 {
		t.Errorf("raised %d times", raised)
	}
	b.poll.Profile = core.ProfileMACOnly
	want := fmt.Sprint(w.post(nil, PathPoll, w.device("nobody", secretOf("nobody"), 0).body()))
	for range 3 {
		if rec := w.post(nil, PathPoll, b.body()); fmt.Sprint(rec) != want {
			t.Errorf("%v, not %v", rec, want)
		}
	}
	if n := strings.Count(strings.Join(w.timeline("pump-1"), "|"), fleet.EventWireRefused+": it spoke mac-only and was signed before"); n != 1 {
		t.Errorf("noted %d times: %v", n, w.timeline("pump-1"))
	}
	w.ok(nil, w.store.ResetWire(t.Context(), "pump-1", w.now()))
	b.ask()
	if d := w.fleetDevice("pump-1"); d.StrongestWire != fleet.WireMACOnly {
		t.Errorf("%+v", d)
	}
}

func TestRevertAndRetry(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	b := w.board("pump-1")
	b.offered(r)
	b.report(r, core.StateConfirmed, 0)
	b.poll.Epoch, b.poll.Sequence, b.poll.Version = 1, 7, []byte("1.0")
	b.nothing()
	w.ok(w.store.OrderRollback(t.Context(), "pump-1", "runs hot", w.now()))
	for range 2 { // until it reports
		if a := b.nothing(); a.Revert != 1 {
			t.Errorf("%+v", a)
		}
	}
	if d := w.fleetDevice("pump-1"); d.RollbackSentAt.IsZero() {
		t.Errorf("%+v", d)
	}
	w.restart()
	if a := b.nothing(); a.Revert != 1 {
		t.Errorf("%+v", a)
	}
	b.report(r, core.StateReverted, 24)
	if a := b.nothing(); a.Revert != 0 || w.fleetDevice("pump-1").RollbackWanted {
		t.Errorf("%+v", a)
	}
	// A second order has a number of its own. The device can't, and says so.
	w.advance(time.Minute)
	w.ok(w.store.OrderRollback(t.Context(), "pump-1", "", w.now()))
	if a := b.nothing(); a.Revert != 2 {
		t.Errorf("%+v", a)
	}
	b.report(fleet.Release{Image: r.Image}, core.StateFailed, 25)
	if a := b.nothing(); a.Revert != 0 {
		t.Errorf("%+v", a)
	}

	// What it found bad is tried again by order only, and the order is used up by the try.
	w.advance(time.Minute)
	r2 := w.publish("2.0", 8, nil)
	b.offered(r2)
	b.report(r2, core.StateReverted, 19)
	b.nothing()
	w.advance(time.Minute)
	w.ok(nil, w.store.OrderRetry(t.Context(), "pump-1", w.now()))
	w.advance(time.Minute)
	for range 2 {
		if a := b.offered(r2); !bytes.Equal(a.Retry, r2.Image.Digest[:]) {
			t.Errorf("%+v", a)
		}
	}
	b.report(r2, core.StateDownloading, 0)
	if a := b.offered(r2); a.Retry != nil {
		t.Errorf("%+v", a)
	}
	b.report(r2, core.StateFailed, 19)
	b.nothing()
	// Unproven is no verdict: the device tries again by itself.
	r3 := w.publish("3.0", 9, nil)
	b.offered(r3)
	b.report(r3, core.StateUnproven, 23)
	b.offered(r3)
}

// Under load a device is told to come back, and nothing of it is lost.
func TestStoreFails(t *testing.T) {
	w := newRig(t, nil)
	f := &failing{}
	w.change = func(c *Config) {
		f.NativeDevices, c.Devices = c.Devices, f
		if c.Replicas != nil {
			c.Replicas = failingReplicas{c.Replicas, f}
		}
	}
	w.server, w.mux = w.replica()
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	b := w.board("pump-1")
	for _, c := range []struct {
		code   fleet.Code
		status int
		retry  bool
	}{{fleet.CodeBusy, 503, true}, {fleet.CodeNoSpace, 507, true}, {fleet.CodeInternal, 500, false}} {
		f.err = fleet.Errorf(c.code, "because")
		rec := w.post(nil, PathPoll, b.body())
		if rec.Code != c.status || rec.Header().Get("Retry-After") != "" != c.retry {
			t.Errorf("%s: %d %v", c.code, rec.Code, rec.Header())
		}
		m := b.says(r, core.StateDownloading, 0)
		if rec := b.send(m); rec.Code != c.status {
			t.Errorf("%s: %d", c.code, rec.Code)
		}
	}
	f.err = nil
	b.offered(r)
	m := b.report(r, core.StateDownloading, 0)
	b.acked(m, b.send(m))
	if opentest.Postgres() {
		return // nothing is written behind
	}
	// What could not be written behind is written later.
	f.err = fleet.Errorf(fleet.CodeBusy, "because")
	f.pollsPass = true
	b.offered(r)
	if err := w.server.Flush(t.Context()); fleet.CodeOf(err) != fleet.CodeBusy {
		t.Error(err)
	}
	f.err = nil
	w.flush()
	if d := w.fleetDevice("pump-1"); d.NativeNonce != b.poll.Nonce {
		t.Errorf("%+v", d)
	}
	if !strings.Contains(w.log.String(), "because") {
		t.Error("what is not the device's fault is not in the log")
	}
}

type failing struct {
	fleet.NativeDevices
	err       error
	pollsPass bool
}

func (f *failing) NativePoll(ctx context.Context, id string, want fleet.Wanted) (fleet.NativeDevice, error) {
	if f.err != nil && !f.pollsPass {
		return fleet.NativeDevice{}, f.err
	}
	return f.NativeDevices.NativePoll(ctx, id, want)
}

type failingReplicas struct {
	fleet.Replicas
	*failing
}

func (f failingReplicas) PollTaking(ctx context.Context, seen fleet.NativeSeen, keys int64, want fleet.Wanted) (fleet.NativeDevice, bool, error) {
	if f.err != nil {
		return fleet.NativeDevice{}, false, f.err
	}
	return f.Replicas.PollTaking(ctx, seen, keys, want)
}

func (f *failing) TakeReport(ctx context.Context, r fleet.NativeReport, now time.Time) error {
	if f.err != nil {
		return f.err
	}
	return f.NativeDevices.TakeReport(ctx, r, now)
}

func (f *failing) SaveNativeSeen(ctx context.Context, seen []fleet.NativeSeen) error {
	if f.err != nil {
		return f.err
	}
	return f.NativeDevices.SaveNativeSeen(ctx, seen)
}

// The cache is bounded, and what leaves it is written before.
func TestDeviceCacheIsBounded(t *testing.T) {
	w := newRig(t, func(c *Config) { c.MaxDevices = 4 })
	w.keyList(1, 0)
	var boards []*board
	for i := range 10 {
		boards = append(boards, w.board(fmt.Sprint("d", i)))
	}
	for range 3 {
		for _, b := range boards {
			b.ask()
			if n := len(w.server.devices.byID); n > 4 {
				t.Fatalf("%d devices in memory", n)
			}
		}
	}
	w.flush()
	for _, b := range boards {
		if d := w.fleetDevice(b.id); d.NativeNonce != 3 {
			t.Errorf("%s: %d", b.id, d.NativeNonce)
		}
	}
	// Strangers take no place.
	for i := range 20 {
		w.post(nil, PathPoll, w.device(fmt.Sprint("x", i), secretOf("x"), 0).body())
	}
	if n := len(w.server.devices.byID); n == 0 || n > 4 {
		t.Errorf("%d devices in memory", n)
	}
}

// A device that leaves memory between its look-up and its nonce is found again, and its
// nonces are used once all the same.
func TestEvictedInBetween(t *testing.T) {
	w := newRig(t, func(c *Config) { c.MaxDevices = 4 })
	w.keyList(1, 0)
	b := w.board("pump-1")
	b.ask()
	was, err := w.server.devices.get(t.Context(), "pump-1")
	w.ok(nil, err)
	w.flush()
	for i := range 4 { // until it is out
		w.board(fmt.Sprint("other-", i)).ask()
		w.flush()
	}
	for i := 4; ; i++ {
		was.mu.Lock()
		gone := was.gone
		was.mu.Unlock()
		if gone {
			break
		}
		w.board(fmt.Sprint("other-", i)).ask()
		w.flush()
	}
	if _, err := was.take(b.poll.Nonce+1, 0); !errors.Is(err, errGone) {
		t.Fatal(err)
	}
	now, got, err := w.server.devices.take(t.Context(), was, b.poll.Nonce+1, 0)
	if err != nil || now == was || !got.fresh || got.highest != b.poll.Nonce {
		t.Fatalf("%+v %v", got, err)
	}
	now.done(true, w.now())
	if _, got, err := w.server.devices.take(t.Context(), was, b.poll.Nonce+1, 0); err != nil || got.fresh {
		t.Errorf("%+v %v", got, err)
	}
}

// The highest nonce that there is does not lock anybody out who did not use it up.
func TestNonceBounds(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	b := w.board("pump-1")
	for _, n := range []uint64{1<<64 - 1, 1 << 63} {
		b.poll.Nonce = n - 1
		a := b.answer(w.post(nil, PathPoll, b.body()))
		if a.Highest < n || a.HasOffer {
			t.Errorf("%d: %+v", n, a)
		}
	}
	b.poll.Nonce = 1<<63 - 2
	b.ask()
	if d := w.fleetDevice("pump-1"); d.NativeNonce != 1<<63-1 {
		t.Errorf("%+v", d)
	}
}

// A manifest that is damaged in the store stops nobody else.
func TestDamagedManifest(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	streams, _ := w.store.Streams(t.Context(), r.ID)
	w.ok(w.store.Withdraw(t.Context(), w.publish("other", 6, nil).ID, w.now()))
	bad := r
	bad.Sequence, bad.Version = 9, "bad"
	_, _, err := w.store.PublishSigned(t.Context(), bad, []byte("no envelope"), streams, w.newestList(), w.now())
	w.ok(nil, err)
	w.board("pump-1").offered(r)
	if !strings.Contains(w.log.String(), "damaged") {
		t.Error(w.log.String())
	}
}

// An idle poll, with the device's side of it: two MACs there, two here, one statement.
func BenchmarkIdlePoll(b *testing.B) {
	w := newRig(b, nil)
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	d := w.board("pump-1")
	d.offered(r)
	b.ReportAllocs()
	for b.Loop() {
		d.ask()
	}
}
