package adminapi_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/release/releasetest"
)

// Terms are set as a whole or not at all, hold for the next push, and are shown.
func TestTermsAPI(t *testing.T) {
	w, _ := signedWorld(t)
	image := []byte(strings.Repeat("not an ESP image ", 300))
	push := func(version string, sequence uint32, query string) *httptest.ResponseRecorder {
		m := releasetest.Manifest(t, "acme/pump", version, image)
		m.Sequence = sequence
		return w.do("POST", "/releases"+query, string(releasetest.File(t, nil, m, image, nil)), "Content-Type", fileType)
	}
	key := release.KeyName(releasetest.Public("release"))
	w.wants("POST", "/policies", `{"product":"acme/pump","signers":["0011223344556677"]}`, 400, `has no release key 0011223344556677`, key)
	w.wants("POST", "/policies", `{"product":"acme/lamp","signers":["`+key+`"]}`, 400, `does not name acme/lamp`, `keys product`)
	w.wants("POST", "/policies", `{"product":"acme/pump","signers":["short"]}`, 400, `16 hex digits`)
	w.wants("POST", "/policies", `{"product":"acme/pump","confirm":"maybe"}`, 422)
	w.wants("POST", "/policies", `{"product":"acme/pump","allow_v1":true,"chunk_sizes":[7]}`, 400, `chunk size is 7`)
	w.wants("GET", "/policies", "", 200, `"allow_v1":false`) // nothing of what is refused was done
	w.wants("POST", "/policies", `{"product":"acme/pump","signers":["`+key+`"],"least_assurance":"own","least_wire":"signed","confirm":"contact","chunk_sizes":[2048]}`, 200,
		`"signers":["`+key+`"]`, `"least_assurance":"own"`, `"least_wire":"signed"`, `"confirm":"contact"`, `"chunk_sizes":[2048]`, `"signed_only":true`)
	if p := w.fails(push("1.0", 1, ""), 403, "forbidden"); !strings.Contains(p.Detail, "takes chunks of 2048 bytes") || !strings.Contains(p.Hint, "--chunk-size 2048") {
		t.Errorf("%+v", p)
	}
	second := release.KeyName(releasetest.Public("second"))
	w.wants("POST", "/policies", `{"product":"acme/pump","signers":["`+second+`"],"chunk_sizes":[]}`, 200, `"signers":["`+second+`"]`)
	if p := w.fails(push("1.0", 1, ""), 403, "forbidden"); !strings.Contains(p.Detail, "acme/pump takes what "+second+" signed, and "+key+" signed 1.0") || !strings.Contains(p.Hint, "runnel sign --add") {
		t.Errorf("%+v", p)
	}
	w.wants("POST", "/policies", `{"product":"acme/pump","signers":["`+second+`","`+key+`"]}`, 200, `"least_wire":"signed"`)
	w.wants("POST", "/policies", `{"product":"acme/pump","chunk_sizes":[1024]}`, 200, `"confirm":"contact"`)
	w.ok(push("1.0", 1, ""), 201, `"state":"published"`)

	// What is said of unsigned images too: the default size of chunks.
	w.wants("POST", "/policies", `{"product":"plain","chunk_sizes":[4096,1024]}`, 200, `"chunk_sizes":[4096,1024]`)
	if p, err := w.store.Policy(t.Context(), "plain"); err != nil || p.Terms.DefaultChunk() != 4096 {
		t.Errorf("%+v %v", p, err)
	}
	// A rollout of what the terms leave out would be offered to nobody.
	w.ok(push("2.0", 2, "?draft=true&channel=beta&notes=quiet"), 201, `"state":"draft"`)
	rollout := func(body string, status int, parts ...string) {
		t.Helper()
		w.wants("POST", "/rollouts", `{"product":"acme/pump","phases":"100%",`+body+`}`, status, parts...)
	}
	rollout(`"release":"2.0"`, 409, `draft`, `releases publish 2`)
	rollout(`"channel":"beta"`, 404, `channel beta of acme/pump has no published release`)
	rollout(`"channel":"beta","release":"2.0"`, 400, `name one of both`)
	rollout(`"release":"1.0","assurance":"shared"`, 400, `no more would count`)
	rollout(`"release":"1.0","backoff_scale":1000`, 400, `0.01 to 100`)
	w.ok(w.do("POST", "/releases/2/publish", ""), 200, `"state":"published"`)
	w.ok(w.do("POST", "/releases/9/publish", ""), 404, `not_found`)
	w.ok(w.do("GET", "/releases?channel=beta", ""), 200, `{"releases":[{"id":2,`)
	w.ok(w.do("GET", "/releases/2", ""), 200, `"channel":"beta","notes":"quiet"`)
	w.ok(w.do("POST", "/releases/2", `{"notes":"louder","channel":""}`), 200, `"notes":"louder"`)
	w.ok(w.do("POST", "/releases/2", `{}`), 400, `neither notes nor channel`)
	w.ok(w.do("POST", "/releases/2", `{"channel":"a b"}`), 400, `invalid`)
}

// Without a size the product's default counts.
func TestDefaultChunk(t *testing.T) {
	w := newWorld(t, nil)
	push := func(version string) *httptest.ResponseRecorder {
		return w.do("POST", "/releases?product=p&version="+version, "image", "Content-Type", "application/octet-stream")
	}
	w.ok(push("1"), 201, `"chunk_size":1024`)
	if err := w.store.SetTerms(t.Context(), "p", fleet.TermsChange{Chunks: &[]int{512}}, t0); err != nil {
		t.Fatal(err)
	}
	w.ok(push("2"), 201, `"chunk_size":512`)
	w.ok(w.do("POST", "/releases?product=p&version=3&chunk_size=1024", "image", "Content-Type", "application/octet-stream"), 403, `takes chunks of 512`)
}
