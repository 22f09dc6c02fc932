package adminapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/adminapi"
	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/ingest"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/release/releasetest"
	"github.com/runnel-fota/runnel/sim/board"
)

const fileType = "application/vnd.runnel.release"

// signedWorld has the real intake, and key list 1.
func signedWorld(t *testing.T, change ...func(*adminapi.Config)) (*world, *ingest.Service) {
	t.Helper()
	var in *ingest.Service
	w := newWorld(t, func(c *adminapi.Config) {
		blobs, err := dir.Open(dir.Options{Path: t.TempDir(), Reserve: -1})
		if err != nil {
			t.Fatal(err)
		}
		store := c.Signed.(interface {
			ingest.Signed
			fleet.Releases
		})
		in = ingest.New(ingest.Options{Blobs: blobs, Releases: store, Signed: store, Now: func() time.Time { return t0 },
			Stage: func(ctx context.Context, n int64) (ingest.Staged, error) { return blobs.Stage(ctx, n) }})
		c.Publisher, c.Taker, c.MaxImage, c.MaxRelease = in, in, 0, 100_000
		for _, f := range change {
			f(c)
		}
	})
	if _, _, err := in.AddKeyList(t.Context(), releasetest.SealList(t, releasetest.List(1, "acme/pump"))); err != nil {
		t.Fatal(err)
	}
	return w, in
}

func TestPublishReleaseFile(t *testing.T) {
	w, in := signedWorld(t)
	image := []byte(strings.Repeat("not an ESP image ", 300))
	m := releasetest.Manifest(t, "acme/pump", "1.0", image)
	m.Sequence, m.SecurityVersion, m.SignedAt = 3, 2, 1_790_000_000
	m.Hardware = append(m.Hardware, []byte{1, 2})
	file := string(releasetest.File(t, nil, m, image, []release.DerivedFile{releasetest.Patch(t, m, []byte("base"), image[:2000])}))
	push := func(query, body, kind string) *httptest.ResponseRecorder {
		return w.do("POST", "/releases"+query, body, "Content-Type", kind)
	}
	w.ok(push("", file, fileType), 201, `"signed":true,"epoch":1,"sequence":3,"security_version":2,"manifest_digest":"`)
	w.ok(push("", file, fileType+"; charset=binary"), 200, `"created":false`)
	// What a release file says is not said again.
	w.fails(push("?product=acme/pump", file, fileType), 422, "invalid")
	w.fails(push("?version=1.0", file, fileType), 422, "invalid")
	// The type decides, and nothing is guessed.
	w.fails(push("", file, "application/octet-stream"), 422, "invalid")
	if p := w.fails(push("?product=p&version=1", file, "application/octet-stream"), 400, "invalid"); !strings.Contains(p.Hint, "release file") {
		t.Errorf("%+v", p)
	}
	w.fails(push("", string(image), fileType), 400, "invalid")
	w.fails(push("", file[:len(file)-1], fileType), 400, "invalid")
	large := make([]byte, 120_000)
	w.fails(push("", string(releasetest.File(t, nil, releasetest.Manifest(t, "acme/pump", "9", large), large, nil)), fileType), 413, "too_large")
	m.SecurityVersion = 5
	w.fails(push("", string(releasetest.File(t, nil, m, image, nil)), fileType), 409, "conflict")
	p := w.fails(push("", string(releasetest.File(t, nil, m, image, nil, "thief")), fileType), 400, "invalid")
	if !strings.Contains(p.Detail, "0 of 1") || p.Hint == "" {
		t.Errorf("%+v", p)
	}
	// A product that is signed takes no unsigned image, with a code and a hint.
	esp, err := board.BuildImage(board.ImageSpec{Size: 20 << 10, Chip: esp32.ChipESP32C3, Project: "pump", Version: "2", Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if p := w.fails(push("?product=acme/pump&version=2", string(esp), "application/octet-stream"), 403, "forbidden"); p.Hint == "" || !strings.Contains(p.Detail, "acme/pump") {
		t.Errorf("%+v", p)
	}
	// An upload that breaks off.
	r := httptest.NewRequest("POST", "/api/v1/releases", io.MultiReader(strings.NewReader(file[:5000]), broken{}))
	r.Header.Set("Authorization", "Bearer "+w.token)
	r.Header.Set("Content-Type", fileType)
	rec := httptest.NewRecorder()
	w.mux.ServeHTTP(rec, r)
	if p := w.fails(rec, 400, "invalid"); p.Detail != "the upload broke off" {
		t.Errorf("%+v", p)
	}
	if list, err := w.store.ListReleases(t.Context(), ""); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}

	var d adminapi.Detail
	show := func() {
		t.Helper()
		d = adminapi.Detail{}
		rec := w.do("GET", "/releases/1", "")
		w.ok(rec, 200, `"manifest":{`)
		if err := json.Unmarshal(rec.Body.Bytes(), &d); err != nil {
			t.Fatal(err)
		}
	}
	show()
	name := release.KeyName(releasetest.Public("release"))
	if len(d.Signers) != 1 || d.Signers[0] != (adminapi.Signer{Key: name, Listed: true}) {
		t.Errorf("%+v", d.Signers)
	}
	mf := d.Manifest
	if mf.Product != "acme/pump" || mf.Version != "1.0" || fmt.Sprint(mf.Hardware) != "[board-1 0102]" || mf.Epoch != 1 || mf.Sequence != 3 || mf.SecurityVersion != 2 ||
		mf.Component != "app" || mf.Format != "raw" || mf.Chip != nil || mf.ImageDigest != d.Digest || int64(mf.ImageSize) != d.Size || mf.Slot != nil || mf.Address != nil ||
		!mf.ConfirmContact || mf.ConfirmSeconds != 600 || mf.SignedAt == nil || mf.SignedAt.Unix() != 1_790_000_000 {
		t.Errorf("%+v", mf)
	}
	if d.Derived == nil || d.Derived.Key != "" || !strings.Contains(d.Derived.Why, "--patch-bases 0") || d.Derived.List == nil {
		t.Errorf("%+v", d.Derived)
	}
	kinds := map[string]adminapi.Stream{}
	for _, s := range d.Streams {
		kinds[s.Kind] = s
	}
	raw, patch := kinds["raw"], kinds["patch"]
	if len(d.Streams) != 2 || raw.Chunk != 1024 || raw.Root != m.Image.Streams[0].Root.String() || raw.Base != "" || len(raw.Digest) != 64 ||
		raw.Length != int64(len(image)+4*32) || patch.Base == "" || patch.Length != 2000+3*32 {
		t.Errorf("%+v", d.Streams)
	}
	// After a revocation the signer is shown for what it is.
	l2 := releasetest.List(2, "acme/pump")
	l2.Keys = slices.Delete(l2.Keys, 0, 1)
	if _, _, err := in.AddKeyList(t.Context(), releasetest.SealList(t, l2)); err != nil {
		t.Fatal(err)
	}
	if show(); d.Signers[0].Listed {
		t.Error("a revoked key is listed")
	}
}

// Of an unsigned release it is what is known.
func TestUnsignedDetail(t *testing.T) {
	w := newWorld(t, nil)
	w.ok(w.do("POST", "/releases?product=p&version=1", "image", "Content-Type", "application/octet-stream"), 201, `"signed":false,"epoch":0,"sequence":0`)
	rec := w.do("GET", "/releases/1", "")
	w.ok(rec, 200, `"signers":[],"streams":[]`)
	if bytes.Contains(rec.Body.Bytes(), []byte(`"manifest`)) {
		t.Error(rec.Body)
	}
}

func TestKeyLists(t *testing.T) {
	w, _ := signedWorld(t)
	push := func(envelope []byte) *httptest.ResponseRecorder {
		return w.do("POST", "/keylists", string(envelope), "Content-Type", "application/cose")
	}
	w.ok(push(releasetest.SealList(t, releasetest.List(1, "acme/pump"))), 200, `"created":false`)
	w.ok(push(releasetest.SealList(t, releasetest.List(2, "acme/pump", "acme/valve"))), 201, `"version":2,"generation":1`)
	w.fails(push(releasetest.SealList(t, releasetest.List(1, "acme/pump"))), 409, "conflict")
	w.fails(push(releasetest.SealList(t, releasetest.List(3, "acme/pump"), "thief")), 400, "invalid")
	w.fails(push([]byte("no list")), 400, "invalid")
	w.fails(push(bytes.Repeat([]byte{1}, 20_000)), 413, "too_large")
	w.ok(w.do("GET", "/keylists", ""), 200, `{"keylists":[{"version":2,`)
}

func TestPolicies(t *testing.T) {
	w, _ := signedWorld(t)
	set := func(body string) *httptest.ResponseRecorder { return w.do("POST", "/policies", body) }
	w.ok(w.do("GET", "/policies", ""), 200, `{"policies":[{"product":"acme/pump","signed_only":true,"allow_v1":false,"by_operator":false,"least_assurance":"none","least_wire":"v1","confirm":"any"}]}`)
	w.ok(set(`{"product":"acme/pump","allow_v1":true}`), 200, `"signed_only":true,"allow_v1":true,"by_operator":false`)
	w.ok(set(`{"product":"acme/pump","signed_only":false,"allow_v1":false}`), 200, `"signed_only":false,"allow_v1":true,"by_operator":true`)
	w.ok(set(`{"product":"acme/pump","signed_only":true}`), 200, `"signed_only":true,"allow_v1":false`)
	w.ok(set(`{"product":"new","signed_only":true}`), 200, `"signed_only":true`)
	w.fails(set(`{"product":"new"}`), 400, "invalid")
	w.fails(set(`{"product":"a b","allow_v1":true}`), 400, "invalid")
	w.fails(set(`{"product":"new","allow_v1":"yes"}`), 422, "invalid")
	w.fails(w.do("POST", "/releases?product=new&version=1", "image", "Content-Type", "application/octet-stream"), 400, "invalid")
}

// Builds of one release are rows that name each other, and go together.
func TestBuilds(t *testing.T) {
	w, _ := signedWorld(t)
	for slot := range uint8(2) {
		image := []byte(strings.Repeat(fmt.Sprint("linked for slot ", slot), 300))
		m := releasetest.Manifest(t, "acme/pump", "1.0", image)
		address := 0x4000 + 0x20000*uint32(slot)
		m.Sequence, m.Image.Slot, m.Image.Address = 3, &slot, &address
		w.ok(w.do("POST", "/releases", string(releasetest.File(t, nil, m, image, nil)), "Content-Type", fileType), 201, fmt.Sprintf(`"sequence":3,"security_version":0,"slot":%d,`, slot))
		m.SecurityVersion = 1
		w.fails(w.do("POST", "/releases", string(releasetest.File(t, nil, m, image, nil)), "Content-Type", fileType), 409, "conflict")
	}
	var list struct{ Releases []adminapi.Release }
	get := func(path string, into any) {
		t.Helper()
		rec := w.do("GET", path, "")
		w.ok(rec, 200, "")
		if err := json.Unmarshal(rec.Body.Bytes(), into); err != nil {
			t.Fatal(err)
		}
	}
	get("/releases", &list)
	if len(list.Releases) != 2 || *list.Releases[0].Slot != 1 || *list.Releases[1].Slot != 0 {
		t.Fatalf("%+v", list)
	}
	for id := range 2 {
		var d adminapi.Detail
		get(fmt.Sprint("/releases/", id+1), &d)
		if len(d.Builds) != 2 || d.Builds[0] != (adminapi.Build{Slot: 0, ID: 1, Digest: list.Releases[1].Digest}) || d.Builds[1] != (adminapi.Build{Slot: 1, ID: 2, Digest: list.Releases[0].Digest}) ||
			int(*d.Manifest.Slot) != id || *d.Manifest.Address != 0x4000+0x20000*uint32(id) || int(*d.Slot) != id {
			t.Errorf("%+v", d)
		}
	}
	w.ok(w.do("POST", "/releases/2/withdraw", ""), 200, `"state":"withdrawn"`)
	get("/releases", &list)
	for _, r := range list.Releases {
		if r.State != "withdrawn" {
			t.Errorf("%+v", r)
		}
	}
}

// Where a device runs from is shown once it said so.
func TestRunningSlot(t *testing.T) {
	w := newWorld(t, nil)
	if err := w.store.AddNativeDevice(t.Context(), fleet.Device{ID: "pump-1"}, fleet.Key{1}, nil, t0); err != nil {
		t.Fatal(err)
	}
	show := func() adminapi.Device {
		t.Helper()
		var d adminapi.Device
		rec := w.do("GET", "/devices/pump-1", "")
		w.ok(rec, 200, "")
		if err := json.Unmarshal(rec.Body.Bytes(), &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := show(); d.Slots != 0 || d.RunningSlot != nil {
		t.Errorf("%+v", d)
	}
	for i, running := range []int{0, 1, fleet.FactoryImage} {
		if _, err := w.store.TakePoll(t.Context(), fleet.NativeChange{Device: "pump-1", Nonce: uint64(i + 1), Now: t0, Facts: fleet.NativeFacts{Slots: 2, RunningSlot: running}}); err != nil {
			t.Fatal(err)
		}
		if d := show(); d.Slots != 2 || d.RunningSlot == nil || *d.RunningSlot != running {
			t.Errorf("%+v", d)
		}
	}
}
