package storetest

import (
	"crypto/sha256"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/runnel-fota/runnel/internal/fleet"
)

func (s *suite) addNative(id, product string) {
	s.Helper()
	s.ok(s.AddNativeDevice(ctx, fleet.Device{ID: id, Product: product}, *keyOf("native " + id), nil, at(0)))
}

func (s *suite) wantKeys(id string, want ...fleet.NativeKey) fleet.NativeKeys {
	s.Helper()
	k, err := s.NativeKeys(ctx, id)
	s.ok(err)
	if len(k.Keys) != len(want) {
		s.Errorf("%d keys, not %d", len(k.Keys), len(want))
		return k
	}
	for i := range want {
		if k.Keys[i] != want[i] {
			s.Errorf("key %d is number %d, want %d: right secret %v", i, k.Keys[i].Number, want[i].Number, k.Keys[i].Secret == want[i].Secret)
		}
	}
	return k
}

func (s *suite) nativeKeys() {
	key := func(n uint8, name string) fleet.NativeKey { return fleet.NativeKey{Number: n, Secret: *keyOf(name)} }
	_, err := s.NativeKeys(ctx, "a")
	s.code(err, fleet.CodeNotFound)
	s.addDevice("v1", at(0))
	_, err = s.NativeKeys(ctx, "v1")
	s.code(err, fleet.CodeNotFound)

	s.ok(s.AddNativeDevice(ctx, fleet.Device{ID: "a", Product: "p"}, *keyOf("native a"), keyOf("a"), at(0)))
	k := s.wantKeys("a", key(0, "native a"))
	if k.Device != "a" || k.Product != "p" || k.Nonce != 0 {
		s.Errorf("%+v", k)
	}
	if v1, how, err := s.DeviceKey(ctx, "a"); err != nil || v1 != *keyOf("a") || how != fleet.AssuranceOwn {
		s.Errorf("%s %v", how, err)
	}
	if d := s.device("a"); d.NativeKeys != 1 || d.Assurance != fleet.AssuranceOwn {
		s.Errorf("%+v", d)
	}
	s.wantNames("a", fleet.EventDeviceAdded)
	s.code(s.AddNativeDevice(ctx, fleet.Device{ID: "a"}, *keyOf("x"), keyOf("y"), at(1)), fleet.CodeConflict)
	s.wantKeys("a", key(0, "native a"))
	if v1, _, err := s.DeviceKey(ctx, "a"); err != nil || v1 != *keyOf("a") {
		s.Error("a conflict changed the v1 key")
	}
	s.code(s.AddNativeDevice(ctx, fleet.Device{ID: "same"}, *keyOf("x"), keyOf("x"), at(1)), fleet.CodeInvalid)
	s.code(s.AddNativeDevice(ctx, fleet.Device{ID: "all"}, *keyOf("x"), nil, at(1)), fleet.CodeInvalid)

	// A native key alone is no v1 key, and the product's v1 key makes v1's assurance a shared one.
	s.addNative("b", "p")
	_, _, err = s.DeviceKey(ctx, "b")
	s.code(err, fleet.CodeNotFound)
	if d := s.device("b"); d.Assurance != fleet.AssuranceOwn {
		s.Errorf("%+v", d)
	}
	s.ok(s.SetProductKey(ctx, "p", *keyOf("p"), at(1)))
	if d := s.device("b"); d.Assurance != fleet.AssuranceShared {
		s.Errorf("%+v", d)
	}

	// Two live while one is exchanged; a poll with the old one changes nothing of that.
	n, err := s.AddNativeKey(ctx, "a", *keyOf("next"), at(1))
	s.ok(err)
	if n != 1 {
		s.Errorf("number %d", n)
	}
	two := s.wantKeys("a", key(0, "native a"), key(1, "next"))
	if two.Version <= k.Version {
		s.Error("the version of the keys did not rise")
	}
	s.taken(fleet.NativeChange{Device: "a", Nonce: 1, Key: 0, Now: at(2)}, true)
	s.wantKeys("a", key(0, "native a"), key(1, "next"))
	s.taken(fleet.NativeChange{Device: "a", Nonce: 2, Key: 1, Now: at(3)}, true)
	s.reopen()
	one := s.wantKeys("a", key(1, "next"))
	if one.Version <= two.Version || one.Nonce != 2 {
		s.Errorf("%+v", one)
	}
	s.code(s.TakeReport(ctx, fleet.NativeReport{Device: "a", Nonce: 3, Key: 0, State: fleet.StateFailed}, at(4)), fleet.CodeUnauthenticated)
	_, err = s.AddNativeKey(ctx, "nobody", *keyOf("x"), at(4))
	s.code(err, fleet.CodeNotFound)
	// A v1 device that gets its first native key.
	if n, err := s.AddNativeKey(ctx, "v1", *keyOf("first"), at(5)); err != nil || n != 0 {
		s.Errorf("%d %v", n, err)
	}
	s.wantKeys("v1", key(0, "first"))
}

// nativeKeysAreBounded: the oldest is in use, the newest are on their way.
func (s *suite) nativeKeysAreBounded() {
	s.addNative("a", "")
	want := []fleet.NativeKey{{Number: 0, Secret: *keyOf("native a")}}
	for i := 1; i <= 300; i++ {
		name := fmt.Sprint("key ", i)
		n, err := s.AddNativeKey(ctx, "a", *keyOf(name), at(0)) // a clock that stands still
		s.ok(err)
		if i < 256 && int(n) != i || n == 0 {
			s.Fatalf("key %d has number %d", i, n)
		}
		want = append(want, fleet.NativeKey{Number: n, Secret: *keyOf(name)})
		if len(want) > fleet.MaxNativeKeys {
			want = append(want[:1:1], want[2:]...)
		}
	}
	s.wantKeys("a", want...)
}

func (s *suite) taken(c fleet.NativeChange, want bool) {
	s.Helper()
	got, err := s.TakePoll(ctx, c)
	s.ok(err)
	if got.Fresh != want || got.Refused {
		s.Errorf("nonce %d taken: %+v", c.Nonce, got)
	}
}

// polled is what a poll reads, with what the device did last of the release.
type polled struct {
	fleet.NativeDevice
	Deployment *fleet.Deployment
}

func (s *suite) poll(id string, release int64) (p polled) {
	s.Helper()
	d, err := s.NativePoll(ctx, id, fleet.Wanted{Releases: []int64{release}})
	s.ok(err)
	p.NativeDevice = d
	for i := range d.Deployments {
		if x := &d.Deployments[i]; p.Deployment == nil || x.UpdatedAt.After(p.Deployment.UpdatedAt) {
			p.Deployment = x
		}
	}
	return p
}

func (s *suite) nativePoll() {
	_, err := s.NativePoll(ctx, "a", fleet.Wanted{})
	s.code(err, fleet.CodeNotFound)
	s.addNative("a", "p")
	r := s.mustPublishSigned("p", "1.0", 1, 1)
	other := s.mustPublishSigned("p", "2.0", 2, 2)
	d := s.poll("a", r.ID)
	if d.ID != "a" || d.Product != "p" || d.Deployment != nil || d.Generation != s.generation() || d.Verdict != "" {
		s.Errorf("%+v", d)
	}
	s.ok(s.TakeReport(ctx, fleet.NativeReport{Device: "a", Nonce: 5, Epoch: 1, Sequence: 1, Image: r.Image.Digest, State: fleet.StateFailed, Reason: "no room"}, at(3)))
	d = s.poll("a", r.ID)
	if p := d.Deployment; p == nil || p.ReleaseID != r.ID || p.State != fleet.StateFailed || p.Reason != "no room" || !p.Proven || p.Version != "1.0" || !p.UpdatedAt.Equal(at(3)) {
		s.Errorf("%+v", p)
	}
	if d.NativeNonce != 5 || s.poll("a", other.ID).Deployment != nil || s.poll("a", 0).Deployment != nil {
		s.Errorf("%+v", d)
	}
}

func (s *suite) takePoll() {
	s.addNative("a", "p")
	r := s.mustPublishSigned("p", "1.0", 1, 1)
	_, err := s.OrderRollback(ctx, "a", "recall", at(1))
	s.ok(err)
	event := func(text string) []fleet.Event {
		return []fleet.Event{{Time: at(2), Device: "a", Name: fleet.EventOffer, Detail: text, Proven: true}}
	}
	facts := fleet.NativeFacts{RunningVersion: "0.9", Hardware: "r2\x1b[31m", Epoch: 1, Sequence: 2, SecurityVersion: 3, ListVersion: 4}
	s.taken(fleet.NativeChange{Device: "a", Nonce: 10, Boot: 7, Now: at(2), Facts: facts, Wire: fleet.WireSigned, RevertTold: true,
		Verdict: "newest/1", Events: event("first"), Offered: r.ID}, true)
	s.reopen()
	check := func() {
		s.Helper()
		d := s.poll("a", r.ID)
		if d.NativeNonce != 10 || d.Boot != 7 || d.RunningVersion != "0.9" || d.Hardware != "r2 [31m" || d.Epoch != 1 || d.Sequence != 2 || d.SecurityVersion != 3 || d.ListVersion != 4 ||
			d.StrongestWire != fleet.WireSigned || d.Verdict != "newest/1" || !d.RollbackSentAt.Equal(at(2)) || d.RollbackNumber != 1 || !d.LastSeen.Equal(at(2)) || !d.Signed {
			s.Errorf("%+v", d)
		}
		if p := d.Deployment; p == nil || p.State != fleet.StateOffered || !p.Proven || !p.StartedAt.Equal(at(2)) {
			s.Errorf("%+v", p)
		}
		s.wantNames("a", fleet.EventDeviceAdded, fleet.EventRollback, fleet.EventOffer)
	}
	check()
	// A replay changes nothing, whatever it says.
	for _, nonce := range []uint64{10, 9, 0} {
		s.taken(fleet.NativeChange{Device: "a", Nonce: nonce, Boot: 1, Now: at(9), Wire: fleet.WireMACOnly, Restarted: true, RevertTold: true, Verdict: "x", Events: event("replay"), Key: 3}, false)
	}
	s.taken(fleet.NativeChange{Device: "nobody", Nonce: 99, Now: at(9), Events: event("nobody")}, false)
	_, err = s.TakePoll(ctx, fleet.NativeChange{Device: "a", Nonce: math.MaxInt64 + 1, Now: at(9)})
	s.code(err, fleet.CodeInvalid)
	check()
	// What it has of the release stays.
	s.ok(s.TakeReport(ctx, fleet.NativeReport{Device: "a", Nonce: 11, Epoch: 1, Sequence: 1, Image: r.Image.Digest, State: fleet.StateTrial}, at(10)))
	s.taken(fleet.NativeChange{Device: "a", Nonce: 12, Now: at(11), Offered: r.ID}, true)
	if p := s.deployment("a"); p.State != fleet.StateTrial {
		s.Errorf("%+v", p)
	}
}

// takePollRace: of the same poll on many replicas one is taken.
func (s *suite) takePollRace() {
	s.addNative("a", "")
	var wg sync.WaitGroup
	var n atomic.Int32
	for range 16 {
		wg.Go(func() {
			ok, err := s.TakePoll(ctx, fleet.NativeChange{Device: "a", Nonce: 5, Now: at(1), Events: []fleet.Event{{Time: at(1), Device: "a", Name: fleet.EventOffer, Proven: true}}})
			if err != nil {
				s.Error(err)
			}
			if ok.Fresh {
				n.Add(1)
			}
		})
	}
	wg.Wait()
	if n.Load() != 1 {
		s.Errorf("taken %d times", n.Load())
	}
	s.wantNames("a", fleet.EventDeviceAdded, fleet.EventOffer)
}

func (s *suite) nativeSeen() {
	s.addNative("a", "")
	s.addNative("b", "")
	s.ok(s.SaveNativeSeen(ctx, []fleet.NativeSeen{{Device: "a", Nonce: 10, Boot: 3, At: at(5)}, {Device: "gone", Nonce: 1, At: at(5)}, {Device: "b", Nonce: math.MaxInt64, At: at(4)}}))
	s.ok(s.SaveNativeSeen(ctx, []fleet.NativeSeen{{Device: "a", Nonce: 9, Boot: 1, At: at(4)}}))
	s.reopen()
	if d := s.poll("a", 0); d.NativeNonce != 10 || d.Boot != 3 || !d.LastSeen.Equal(at(5)) {
		s.Errorf("%+v", d)
	}
	if d := s.poll("b", 0); d.NativeNonce != math.MaxInt64 {
		s.Errorf("%+v", d)
	}
	s.code(s.SaveNativeSeen(ctx, []fleet.NativeSeen{{Device: "a", Nonce: 50, At: at(6)}, {Device: "a", Nonce: math.MaxInt64 + 1, At: at(6)}}), fleet.CodeInvalid)
	// What was seen before a report was taken does not undo its nonce.
	s.ok(s.TakeReport(ctx, fleet.NativeReport{Device: "a", Nonce: 20, State: fleet.StateConfirmed}, at(7)))
	s.ok(s.SaveNativeSeen(ctx, []fleet.NativeSeen{{Device: "a", Nonce: 15, Boot: 9, At: at(6)}}))
	if d := s.poll("a", 0); d.NativeNonce != 20 || d.Boot != 3 {
		s.Errorf("%+v", d)
	}
}

func nativeReport(r fleet.Release, nonce uint64, boot, number uint32, state fleet.DeploymentState) fleet.NativeReport {
	rep := fleet.NativeReport{Device: "a", Nonce: nonce, Boot: boot, Number: number, Epoch: r.Epoch, Sequence: r.Sequence, Image: r.Image.Digest, State: state}
	rep.Content = sha256.Sum256(fmt.Append(nil, r.Sequence, state))
	return rep
}

// nativeReports takes a device through an update, over a restart of the server at each step.
func (s *suite) nativeReports() {
	s.addNative("a", "p")
	r := s.mustPublishSigned("p", "1.0", 1, 0)
	s.mustPublishSigned("q", "1.0", 1, 1) // of another product, with the same numbers
	for i, state := range []fleet.DeploymentState{fleet.StateDownloading, fleet.StateVerifying, fleet.StateRebooting, fleet.StateTrial, fleet.StateConfirmed} {
		rep := nativeReport(r, uint64(i+1), 1, uint32(i), state)
		rep.Bytes = 5 * 1024
		s.ok(s.TakeReport(ctx, rep, at(float64(i+1))))
		s.reopen()
		p := s.deployment("a")
		want := 10
		if state == fleet.StateDownloading {
			want = 5
		}
		if p.State != state || p.ReleaseID != r.ID || p.ChunksReceived != want || p.ChunksTotal != 10 || !p.Proven || !p.StartedAt.Equal(at(1)) || !p.UpdatedAt.Equal(at(float64(i+1))) {
			s.Errorf("%+v", p)
		}
		if d := s.device("a"); d.NativeNonce != uint64(i+1) || !d.Signed || !d.LastSeen.Equal(at(float64(i+1))) {
			s.Errorf("%+v", d)
		}
	}
	if d := s.device("a"); d.RunningVersion != "1.0" {
		s.Errorf("%+v", d)
	}
	// Of no release that is known: logged, and nothing else.
	n := len(s.names("a"))
	dep := s.deployment("a")
	for i, change := range []func(*fleet.NativeReport){
		func(r *fleet.NativeReport) { r.Image[0]++ },
		func(r *fleet.NativeReport) { r.Sequence = 99 },
		func(r *fleet.NativeReport) { r.Epoch = 99 },
		func(r *fleet.NativeReport) { r.Epoch, r.Sequence = 0, 0 },
	} {
		rep := nativeReport(r, uint64(20+i), 2, uint32(i), fleet.StateFailed)
		change(&rep)
		s.ok(s.TakeReport(ctx, rep, at(30)))
		if got := s.deployment("a"); got != dep {
			s.Errorf("%d: %+v", i, got)
		}
		if got := len(s.names("a")); got != n+i+1 {
			s.Errorf("%d: %d events, not %d", i, got, n+i+1)
		}
	}
	s.code(s.TakeReport(ctx, fleet.NativeReport{Device: "nobody", Nonce: 1, State: fleet.StateFailed}, at(40)), fleet.CodeUnauthenticated)
	over := nativeReport(r, math.MaxInt64+1, 9, 9, fleet.StateFailed)
	s.code(s.TakeReport(ctx, over, at(40)), fleet.CodeInvalid)
}

func (s *suite) nativeReportsAgain() {
	s.addNative("a", "p")
	r := s.mustPublishSigned("p", "1.0", 1, 0)
	state := func() string {
		return fmt.Sprint(s.deployment("a"), s.device("a"), s.names("a"))
	}
	s.ok(s.TakeReport(ctx, nativeReport(r, 10, 5, 1, fleet.StateDownloading), at(1)))
	s.ok(s.TakeReport(ctx, nativeReport(r, 11, 5, 2, fleet.StateTrial), at(2)))
	s.reopen()
	before := state()
	// The same again, with its own nonce, an older and a newer one: no error, and nothing changes.
	for _, nonce := range []uint64{11, 1, 100} {
		s.ok(s.TakeReport(ctx, nativeReport(r, nonce, 5, 2, fleet.StateTrial), at(3)))
		s.ok(s.TakeReport(ctx, nativeReport(r, nonce, 5, 1, fleet.StateDownloading), at(3)))
	}
	stale := nativeReport(r, 200, 5, 2, fleet.StateTrial)
	stale.Stale = true
	s.ok(s.TakeReport(ctx, stale, at(3)))
	// Another one needs a nonce that is new, to the store and to the wire.
	s.code(s.TakeReport(ctx, nativeReport(r, 11, 5, 3, fleet.StateConfirmed), at(3)), fleet.CodeReplay)
	stale.Number = 3
	s.code(s.TakeReport(ctx, stale, at(3)), fleet.CodeReplay)
	if got := state(); got != before {
		s.Errorf("%s\nbecame\n%s", before, got)
	}
	// A device that was flashed anew counts from the start: the name is known, what it says is new.
	s.ok(s.TakeReport(ctx, nativeReport(r, 12, 5, 2, fleet.StateFailed), at(4)))
	if p := s.deployment("a"); p.State != fleet.StateFailed {
		s.Errorf("%+v", p)
	}
	// And what it says may be what it said then, once its boots are known to begin anew.
	s.taken(fleet.NativeChange{Device: "a", Nonce: 13, Boot: 1, Now: at(5), Restarted: true}, true)
	s.ok(s.TakeReport(ctx, nativeReport(r, 14, 5, 2, fleet.StateFailed), at(6)))
	if p := s.deployment("a"); !p.UpdatedAt.Equal(at(6)) {
		s.Errorf("%+v", p)
	}
	// Names are kept for the last 32, and for 40 at most.
	for i := range uint32(40) {
		s.ok(s.TakeReport(ctx, nativeReport(r, uint64(20+i), 7, i, fleet.StateDownloading), at(7)))
		oldest := i - min(i, 31)
		s.ok(s.TakeReport(ctx, nativeReport(r, 20, 7, oldest, fleet.StateDownloading), at(8)))
	}
	s.code(s.TakeReport(ctx, nativeReport(r, 20, 7, 7, fleet.StateDownloading), at(8)), fleet.CodeReplay)
	s.code(s.TakeReport(ctx, nativeReport(r, 14, 5, 2, fleet.StateFailed), at(8)), fleet.CodeReplay)
}

func (s *suite) strongestWire() {
	s.ok(s.AddNativeDevice(ctx, fleet.Device{ID: "a", Product: "p"}, *keyOf("native a"), keyOf("a"), at(0)))
	wire := func(want fleet.Wire) {
		s.Helper()
		if d := s.device("a"); d.StrongestWire != want {
			s.Errorf("%q, not %q", d.StrongestWire, want)
		}
	}
	wire(fleet.WireNone)
	s.ok(s.SaveSeen(ctx, []fleet.Seen{{Device: "a", At: at(1)}}))
	wire(fleet.WireNone)
	s.ok(s.SaveSeen(ctx, []fleet.Seen{{Device: "a", Nonce: 1, At: at(1)}}))
	wire(fleet.WireV1)
	s.taken(fleet.NativeChange{Device: "a", Nonce: 1, Wire: fleet.WireMACOnly, Now: at(2)}, true)
	s.ok(s.SaveSeen(ctx, []fleet.Seen{{Device: "a", Nonce: 2, At: at(3)}}))
	wire(fleet.WireMACOnly)
	// A report over v1 that was on its way.
	s.code(s.Report(ctx, "a", nil, fleet.Report{Error: ptr("x")}, true, 3, at(4)), fleet.CodeUnauthenticated)
	s.code(s.Report(ctx, "a", nil, fleet.Report{Error: ptr("x")}, false, 0, at(4)), fleet.CodeUnauthenticated)
	s.ok(s.ResetWire(ctx, "a", at(5)))
	s.reopen()
	wire(fleet.WireNone)
	s.ok(s.Report(ctx, "a", nil, fleet.Report{Error: ptr("x")}, true, 3, at(6)))
	wire(fleet.WireV1)
	s.code(s.ResetWire(ctx, "nobody", at(5)), fleet.CodeNotFound)
	s.wantNames("a", fleet.EventDeviceAdded, fleet.EventWireReset, fleet.EventDeviceError)
}
