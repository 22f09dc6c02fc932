package v1_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/opentest"
	v1 "github.com/runnel-fota/runnel/internal/wire/v1"
)

// resplit is a request that was signed over target, nonce and ts, with its last
// digits moved from the target to the nonce: the same MAC.
func resplit(target, nonce, ts string, digits int) (string, []string) {
	h := signed("dev-1", testKey, target, nonce, ts)
	cut := len(target) - digits
	h[3] = target[cut:] + nonce
	return target[:cut], h
}

// docs/security.md, one who recorded signed requests: moving digits of the query to
// the nonce gains him no more than splitLeap nonces, and the device goes on.
func TestQueryDigitsMovedToNonce(t *testing.T) {
	w := newWorld(t, nil)
	w.publish("1", testImage(256<<10), 256)
	n := 5000
	get := func(target string) int {
		n++
		return w.do("GET", target, "", signed("dev-1", testKey, target, fmt.Sprint(n), w.unix())...).Code
	}
	if got := get(v1.PathManifest); got != 200 {
		t.Fatal(got)
	}
	for c := range 1000 {
		if got := get(fmt.Sprintf("%s?chunk_number=%d", v1.PathChunk, c)); got != 200 {
			t.Fatalf("chunk %d: %d", c, got)
		}
	}
	for digits := 1; digits <= 2; digits++ {
		target, h := resplit(v1.PathChunk+"?chunk_number=999", fmt.Sprint(n), w.unix(), digits)
		if rec := w.do("GET", target, "", h...); rec.Code != 401 || !strings.Contains(rec.Body.String(), "replay") {
			t.Errorf("%d digits moved: %d %.80s", digits, rec.Code, rec.Body)
		}
	}
	if got := get(v1.PathChunk + "?chunk_number=999"); got != 200 {
		t.Errorf("the device itself: %d", got)
	}
	// Over the bare path nothing can be moved: a leap is allowed as everywhere.
	n += 1 << 20
	if rec := w.do("GET", v1.PathChunk+"?chunk_number=1", "", signed("dev-1", testKey, v1.PathChunk, fmt.Sprint(n), w.unix())...); rec.Code != 200 {
		t.Errorf("a leap with the bare path: %d %.80s", rec.Code, rec.Body)
	}
}

// A device whose nonce is a time asks for chunks as well as one that counts.
func TestTimesAsNonces(t *testing.T) {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		w := newWorld(t, nil)
		w.publish("1", testImage(4096), 1024)
		for i, pause := range []time.Duration{0, 2 * time.Second, time.Minute, 5 * time.Minute, 2 * time.Second} {
			w.advance(pause)
			target := fmt.Sprintf("%s?chunk_number=%d", v1.PathChunk, i%4)
			nonce := fmt.Sprint(w.now().UnixNano() / int64(unit))
			if rec := w.do("GET", target, "", signed("dev-1", testKey, target, nonce, w.unix())...); rec.Code != 200 {
				t.Errorf("%v after %v: %d %s", unit, pause, rec.Code, rec.Body)
			}
		}
	}
}

// Numbers that are not canonical, in the timestamp.
func TestTimestampForms(t *testing.T) {
	w := newWorld(t, nil)
	for i, ts := range []string{"", "0", "077", "+77", "-1", " 77", "7 7", "7.0", "1e9", "0x77", "٧٧", "00000000000", "99999999999"} {
		nonce := fmt.Sprint(i + 1)
		rec := w.do("GET", v1.PathManifest, "", signed("dev-1", testKey, v1.PathManifest, nonce, ts)...)
		want := 401
		if ts == "0" { // a board just started: canonical
			want = 200
		}
		if rec.Code != want {
			t.Errorf("timestamp %q: %d %s", ts, rec.Code, rec.Body)
		}
	}
}

func TestWindowAndJumpAreSettings(t *testing.T) {
	w := newWorld(t, func(c *v1.Config) { c.Window, c.NonceJump = 10*time.Second, 100 })
	get := func(nonce int, off time.Duration) int {
		ts := fmt.Sprint(w.now().Add(off).Unix())
		return w.do("GET", v1.PathManifest, "", signed("dev-1", testKey, v1.PathManifest, fmt.Sprint(nonce), ts)...).Code
	}
	for _, c := range []struct {
		nonce int
		off   time.Duration
		want  int
	}{{1, 10 * time.Second, 200}, {2, 11 * time.Second, 401}, {2, -11 * time.Second, 401}, {2, -10 * time.Second, 200}, {103, 0, 401}, {102, 0, 200}} {
		if got := get(c.nonce, c.off); got != c.want {
			t.Errorf("nonce %d, %v off: %d, want %d", c.nonce, c.off, got, c.want)
		}
	}
	w.close()
	w.open(func(c *v1.Config) { c.Window = 0 })
	if got := get(200, 24*time.Hour); got != 200 {
		t.Errorf("without a window: %d", got)
	}
}

// docs/api/v1.md: after a crash a signed GET of the last second can be replayed, and
// a POST can't: its nonce is in the store with its report.
func TestReplayAfterCrash(t *testing.T) {
	w := newWorld(t, nil)
	post := func(nonce int) int {
		return w.do("POST", v1.PathStatus, `{"fota_status":{"error":"hot"}}`, signed("dev-1", testKey, v1.PathStatus, fmt.Sprint(nonce), w.unix())...).Code
	}
	get := func(nonce int) int {
		return w.do("GET", v1.PathManifest, "", signed("dev-1", testKey, v1.PathManifest, fmt.Sprint(nonce), w.unix())...).Code
	}
	if a, b := post(10), get(11); a != 200 || b != 200 {
		t.Fatal(a, b)
	}
	w.close() // without a flush
	w.open(nil)
	again := 200
	if opentest.Postgres() {
		again = 401 // its nonce was not in memory
	}
	for _, c := range []struct {
		name string
		got  int
		want int
	}{{"the POST again", post(10), 401}, {"the GET again", get(11), again}, {"and once more", get(11), 401}} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", c.name, c.got, c.want)
		}
	}
	if _, total, err := w.store.Events(t.Context(), "dev-1", 100); err != nil || total != 2 { // added, and one report
		t.Errorf("%d events, %v", total, err)
	}
}

// seenStore is a store of one device that notes what is written behind.
type seenStore struct {
	fleet.Devices
	mu   sync.Mutex
	seen []fleet.Seen
	err  error
}

func (s *seenStore) Device(context.Context, string) (fleet.Device, error) {
	return fleet.Device{ID: "dev-1"}, nil
}

func (s *seenStore) DeviceKey(context.Context, string) (fleet.Key, fleet.Assurance, error) {
	return testKey, fleet.AssuranceOwn, nil
}

func (s *seenStore) SaveSeen(_ context.Context, seen []fleet.Seen) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.seen = append(s.seen, seen...)
	return nil
}

func (s *seenStore) take() []fleet.Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.seen = nil }()
	return s.seen
}

// noReleases is an empty catalogue.
type noReleases struct{}

func (noReleases) Generation(context.Context) (int64, error)                { return 1, nil }
func (noReleases) Snapshot(context.Context) (int64, []fleet.Release, error) { return 1, nil, nil }

// The window of docs/api/v1.md: what a GET taught is in the store a second later,
// or, where the disk failed, with the next second's; and at the end of Run.
func TestWriteBehind(t *testing.T) {
	opentest.OneServer(t)
	w := newWorld(t, nil) // for its requests
	w.close()
	store := &seenStore{}
	synctest.Test(t, func(t *testing.T) {
		w.open(func(c *v1.Config) { c.Devices, c.Catalogue = store, noReleases{} })
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.wire.Run(ctx) }()
		get := func(n int) {
			w.want(w.do("GET", v1.PathManifest, "", signed("dev-1", testKey, v1.PathManifest, fmt.Sprint(n), w.unix())...), 200, "{}")
		}
		second := func() []fleet.Seen {
			<-time.After(time.Second) // the bubble's
			synctest.Wait()
			return store.take()
		}
		get(7)
		get(8)
		if got := second(); len(got) != 1 || got[0].Nonce != 8 || !got[0].Clocked || !got[0].At.Equal(w.now()) {
			t.Errorf("written %+v", got)
		}
		if got := second(); len(got) != 0 {
			t.Errorf("nothing new, and written %+v", got)
		}
		store.mu.Lock()
		store.err = fleet.Errorf(fleet.CodeNoSpace, "the disk is full")
		store.mu.Unlock()
		get(9)
		if second(); !strings.Contains(w.log.String(), "nonces could not be written") {
			t.Error("the log does not say that the disk failed")
		}
		store.mu.Lock()
		store.err = nil
		store.mu.Unlock()
		if got := second(); len(got) != 1 || got[0].Nonce != 9 {
			t.Errorf("after the disk came back: %+v", got)
		}
		get(10)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := store.take(); len(got) != 1 || got[0].Nonce != 10 {
			t.Errorf("at the end: %+v", got)
		}
		w.close()
	})
}

// One key for a product: its devices are served, the log says once a device that it
// is shared and never what it is, and a new key ends the old one at once.
func TestProductKey(t *testing.T) {
	w := newWorld(t, nil)
	old, fresh := fleet.Key{0xAB, 0xCD, 0xEF, 0x01}, fleet.Key{5}
	ctx := t.Context()
	if err := w.wire.DeviceStore().SetProductKey(ctx, "acme/pump", old, w.now()); err != nil {
		t.Fatal(err)
	}
	if err := w.store.AddDevice(ctx, fleet.Device{ID: "p-1", Product: "acme/pump"}, nil, w.now()); err != nil {
		t.Fatal(err)
	}
	n := 0
	get := func(id string, key fleet.Key) int {
		n++
		return w.do("GET", v1.PathManifest, "", signed(id, key, v1.PathManifest, fmt.Sprint(n), w.unix())...).Code
	}
	got := []int{get("p-1", old), get("p-1", old), get("dev-1", old)}
	if err := w.wire.DeviceStore().SetProductKey(ctx, "acme/pump", fresh, w.now()); err != nil {
		t.Fatal(err)
	}
	got = append(got, get("p-1", old), get("p-1", fresh))
	if want := []int{200, 200, 401, 401, 200}; !slices.Equal(got, want) {
		t.Errorf("statuses %v, want %v", got, want)
	}
	log := w.log.String()
	if strings.Count(log, "device=p-1") != 1 || strings.Contains(log, hex.EncodeToString(old[:4])) {
		t.Errorf("log: %s", log)
	}
}

// Anybody can ask in the silent device's place: that it is not known is said once.
func TestSilentUnknownIsLoggedOnce(t *testing.T) {
	w := newWorld(t, func(c *v1.Config) { c.SilentDevice = "old" })
	for range 5 {
		w.want(w.do("GET", v1.PathManifest, ""), 401, "unauthenticated")
	}
	if got := strings.Count(w.log.String(), "silent device is not known"); got != 1 {
		t.Errorf("the log says it %d times", got)
	}
}

// Where headers and an envelope are both there, both must be right and both be new.
func TestHeadersAndEnvelope(t *testing.T) {
	w := newWorld(t, nil)
	const report = `{"fota_status":{}}`
	headers := func(key fleet.Key, nonce string) []string {
		return signed("dev-1", key, v1.PathStatus, nonce, w.unix())
	}
	envelope := func(key fleet.Key, nonce string) string { return seal(key, nonce, w.unix(), report) }
	other := fleet.Key{9}
	for _, c := range []struct {
		name    string
		headers []string
		body    string
		want    int
	}{
		{"both", headers(testKey, "10"), envelope(testKey, "11"), 200},
		{"the headers' key is wrong", headers(other, "12"), envelope(testKey, "13"), 401},
		{"the envelope's key is wrong", headers(testKey, "12"), envelope(other, "13"), 401},
		{"the headers' nonce was used", headers(testKey, "10"), envelope(testKey, "13"), 401},
		{"the envelope's nonce was used", headers(testKey, "12"), envelope(testKey, "11"), 401},
		{"the higher one is used up", headers(testKey, "15"), envelope(testKey, "13"), 200},
		{"so that this is a replay", headers(testKey, "14"), report, 401},
		{"and this is not", headers(testKey, "16"), report, 200},
	} {
		if rec := w.do("POST", v1.PathStatus, c.body, c.headers...); rec.Code != c.want {
			t.Errorf("%s: %d %s, want %d", c.name, rec.Code, rec.Body, c.want)
		}
	}
	for _, bad := range []string{`{"payload":"e30="}`, `{"mac":"00"}`, strings.Replace(envelope(testKey, "20"), `"encrypted":true`, `"encrypted":"maybe"`, 1),
		strings.Replace(envelope(testKey, "20"), `"nonce":20`, `"nonce":2e1`, 1)} {
		if rec := w.do("POST", v1.PathStatus, bad, "Device-ID", "dev-1"); rec.Code != 401 {
			t.Errorf("%s: %d %s", bad, rec.Code, rec.Body)
		}
	}
}

// A device that was downloading when the server stopped gets the rest of the same
// release, though a newer one came up and it has not polled since.
func TestOfferAfterRestart(t *testing.T) {
	w := newWorld(t, nil)
	a, b := strings.Repeat("a", 2048), strings.Repeat("b", 2048)
	w.publish("a", []byte(a), 1024)
	n := 0
	get := func(target string) string {
		n++
		return w.do("GET", target, "", signed("dev-1", testKey, target, fmt.Sprint(n), w.unix())...).Body.String()
	}
	get(v1.PathManifest)
	n++
	w.want(w.do("POST", v1.PathStatus, seal(testKey, fmt.Sprint(n), w.unix(), `{"fota_status":{"chunk_received":1,"total_chunks":2}}`), "Device-ID", "dev-1"), 200, "success")
	w.publish("b", []byte(b), 1024)
	w.close()
	w.open(nil)
	n += 10
	if body := get(v1.PathChunk + "?chunk_number=1"); !strings.Contains(body, `"data":"YWFh`) {
		t.Errorf("after the restart: %.60s", body)
	}
	get(v1.PathManifest)
	if body := get(v1.PathChunk + "?chunk_number=1"); !strings.Contains(body, `"data":"YmJi`) {
		t.Errorf("after the next poll: %.60s", body)
	}
}

// A field of the wrong type was not said; the others count.
func TestFieldsOfWrongType(t *testing.T) {
	w := newWorld(t, nil)
	w.publish("1", testImage(4096), 1024)
	for i, c := range []struct {
		status string
		chunks int
	}{
		{`{"chunk_received":1,"verified":"no","error":5,"boot_status":[],"progress":{}}`, 1},
		{`{"chunk_received":"2","total_chunks":4,"progress":50}`, 2}, // by the percentage
		{`{"chunk_received":3,"total_chunks":null,"rollback":"yes","boot_count":-1,"new_version":7}`, 3},
		{`{"chunk_received":99999999999999999999}`, 3},
		{`{"chunk_received":-1,"progress":101}`, 3},
		{`{"chunk_received":5}`, 3}, // more than there are
		{`{}`, 3},
	} {
		body := seal(testKey, fmt.Sprint(i+1), w.unix(), `{"fota_status":`+c.status+`}`)
		w.want(w.do("POST", v1.PathStatus, body, "Device-ID", "dev-1"), 200, `{"status":"success"}`)
		dep, err := w.store.Deployment(t.Context(), "dev-1")
		if err != nil || dep.ChunksReceived != c.chunks || dep.State != fleet.StateDownloading {
			t.Errorf("%s: %+v, %v", c.status, dep, err)
		}
	}
}
