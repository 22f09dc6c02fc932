package adminapi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/fleet"
)

const secret = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"

// Native keys and tokens go in and never come out, in answers, problems and logs.
func TestNative(t *testing.T) {
	w := newWorld(t, nil)
	post := func(path string, body map[string]any) (out string, status int) {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		rec := w.do("POST", path, string(b))
		if s := rec.Body.String(); strings.Contains(s, secret[:16]) || strings.Contains(s, psk[:16]) {
			t.Errorf("%s: a secret is shown: %s", path, s)
		}
		return rec.Body.String(), rec.Code
	}
	want := func(path string, body map[string]any, status int, part string) {
		t.Helper()
		if out, got := post(path, body); got != status || !strings.Contains(out, part) {
			t.Errorf("%s: %d %s, want %d with %s", path, got, out, status, part)
		}
	}
	want("/devices", map[string]any{"id": "pump-1", "product": "acme/pump", "native_key": secret, "psk": psk}, 201, `"native_keys":1`)
	want("/devices", map[string]any{"id": "pump-2", "native_key": secret, "psk": secret}, 400, "are the same")
	want("/devices", map[string]any{"id": "pump-2", "native_key": secret[:62]}, 400, "native_key has 62 characters")
	want("/devices", map[string]any{"id": "pump-2", "native_key": secret[:63] + "x"}, 400, "native_key is not 64 hex digits")
	want("/devices", map[string]any{"id": "pump-1", "native_key": secret}, 409, "exists already")
	want("/devices/pump-1/native-keys", map[string]any{"native_key": psk}, 201, `"key_number":1`)
	want("/devices/pump-1/native-keys", map[string]any{"native_key": strings.Repeat("0", 64)}, 400, "all zeros")
	want("/devices/nobody/native-keys", map[string]any{"native_key": psk}, 404, "nobody")
	want("/devices/pump-1/reset-wire", nil, 200, `"id":"pump-1"`)
	want("/devices/nobody/reset-wire", nil, 404, "nobody")

	want("/enrol-tokens", map[string]any{"id": "t", "secret": secret, "product": "acme/pump", "id_pattern": "pump-*", "count": 3, "approval": true}, 201, `"warning":"several devices share it`)
	want("/enrol-tokens", map[string]any{"id": "t", "secret": secret, "product": "acme/pump"}, 409, "exists already")
	want("/enrol-tokens", map[string]any{"id": "a:b", "secret": secret, "product": "acme/pump"}, 400, "colons")
	want("/enrol-tokens", map[string]any{"id": "u", "secret": secret[:10], "product": "acme/pump"}, 400, "secret has 10 characters")
	want("/enrol-tokens", map[string]any{"id": "u", "secret": secret, "product": "acme/pump", "expires_at": "2020-01-01T00:00:00Z"}, 400, "expired")
	if _, err := w.store.Enrol(t.Context(), fleet.Enrolment{Token: "t", Device: "pump-9", Hardware: "r2"}, fleet.Key{1}, t0); err != nil {
		t.Fatal(err)
	}
	w.ok(w.do("GET", "/enrol-tokens", ""), 200, `"waiting":[{"device":"pump-9","token":"t","hardware":"r2","status":"waiting"`)
	want("/devices/pump-9/approve", map[string]any{"token": "other"}, 404, "pump-9")
	want("/devices/pump-9/approve", map[string]any{}, 200, `"status":"approved"`)
	want("/enrol-tokens/t/revoke", nil, 200, `"id":"t"`)
	want("/enrol-tokens/t/revoke", nil, 404, "no enrolment token")
	all := w.do("GET", "/devices", "").Body.String() + w.do("GET", "/logs?limit=1000", "").Body.String() + w.do("GET", "/enrol-tokens", "").Body.String() + w.log.String()
	if strings.Contains(all, secret[:16]) || strings.Contains(all, psk[:16]) || !strings.Contains(all, "pump-1") {
		t.Errorf("a secret is shown, or nothing: %s", all)
	}
	for _, path := range []string{"/enrol-tokens", "/devices/pump-1/native-keys", "/devices/pump-1/reset-wire", "/devices/pump-1/approve", "/enrol-tokens/t/revoke"} {
		w.fails(w.do("POST", path, "{}", "Authorization", ""), 401, "unauthenticated")
	}
}
