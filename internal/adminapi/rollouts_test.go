package adminapi_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/adminapi"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/rollout"
)

// The life of a rollout by the API, and what is refused.
func TestRolloutsAPI(t *testing.T) {
	var engine *rollout.Engine
	w := newWorld(t, func(c *adminapi.Config) {
		store := c.Rollouts.(fleet.StepStore)
		engine = &rollout.Engine{Store: store, Log: slog.New(slog.DiscardHandler), Now: c.Now}
		c.Mover = engine
		c.Asker = &rollout.Asker{Store: c.Rollouts.(rollout.AskStore), V1: c.Rollouts.(rollout.V1Releases), Now: c.Now}
	})
	tick := func() {
		t.Helper()
		if err := engine.Tick(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	w.ok(w.do("POST", "/releases?product=acme/pump&version=1.0&chunk_size=1024", "image", "Content-Type", "application/octet-stream"), http.StatusCreated, `"id":1`)
	w.wants("POST", "/devices", `{"id":"pump-7","product":"acme/pump"}`, http.StatusCreated, `"id":"pump-7"`)

	// Before there is a rollout: the newest for all, as a rule.
	w.wants("GET", "/devices/pump-7/why", "", 200, `"verdict":"newest"`, `"release":"1.0"`, `{"rule":"newest","result":"offer"`)
	w.wants("GET", "/devices/nobody/why", "", 404, `"code":"not_found"`)

	for part, body := range map[string]string{
		`filter: column 1: unknown name nope`:  `{"product":"acme/pump","release":"1.0","phases":"100%","to":"nope == 1"}`,
		`phase 1 is \"x\"`:                     `{"product":"acme/pump","release":"1.0","phases":"x"}`,
		`there is no group`:                    `{"product":"acme/pump","release":"1.0","phases":"group:beta"}`,
		`is no share of devices`:               `{"product":"acme/pump","release":"1.0","phases":"100%","fail_threshold":"200%"}`,
		`soak is no length of time`:            `{"product":"acme/pump","release":"1.0","phases":"100%","soak":"long"}`,
		`assurance has to be own`:              `{"product":"acme/pump","release":"1.0","phases":"100%","assurance":"shared","on_failure":"revert"}`,
		`an automatic revert needs 2 at least`: `{"product":"acme/pump","release":"1.0","phases":"100%","min_revert":1}`,
		`is no maintenance window`:             `{"product":"acme/pump","release":"1.0","phases":"100%","window":"night"}`,
	} {
		w.wants("POST", "/rollouts", body, 400, part, `"code":"invalid"`)
	}
	w.wants("POST", "/rollouts", `{"product":"acme/pump","release":"9.9","phases":"100%"}`, 404, `has no release 9.9`)
	w.wants("POST", "/groups", `{"name":"beta","filter":"\"beta\" in tags"}`, 200, `"name":"beta"`)
	w.wants("POST", "/groups", `{"name":"bad","filter":"now()"}`, 400, `function now is not allowed`)
	w.wants("POST", "/rollouts", `{"product":"acme/pump","release":"1.0","phases":"group:beta,100%","to":"","fail_threshold":"20%","soak":"1h30m"}`, http.StatusCreated,
		`"id":1`, `"state":"scheduled"`, `"soak":"1h30m0s"`, `"takes":"group:beta"`, `"fail_threshold":0.2`, `"on_failure":"pause"`)
	tick()
	tick() // the look at all devices comes after the begin
	w.wants("GET", "/rollouts/1", "", 200, `"state":"running"`, `"phase":1`, `"waits_for":0`)
	w.wants("GET", "/rollouts", "", 200, `{"rollouts":[{"id":1`)
	w.wants("GET", "/rollouts?product=other", "", 200, `{"rollouts":[]}`)
	w.wants("GET", "/rollouts/9", "", 404, `no rollout has the number 9`)
	w.wants("DELETE", "/groups/beta", "", 409, `rollout 1 has group beta in a phase`)
	w.wants("GET", "/devices/pump-7/why", "", 200, `"verdict":"phase"`, `"rollout":1`)
	w.wants("POST", "/devices/pump-7/labels", `{"tags":["beta"],"attributes":{"timezone":"Europe/Berlin"}}`, 200, `"tags":["beta"]`)
	w.wants("POST", "/devices/pump-7/labels", `{"tags":[],"attributes":{"timezone":"Moon"}}`, 400, `no time zone`)
	w.wants("GET", "/devices/pump-7/why", "", 200, `"verdict":"rollout"`, `"release":"1.0"`)
	w.wants("POST", "/rollouts/1/pause", `{"reason":"a storm"}`, 200, `"state":"paused"`, `"reason":"a storm"`)
	w.wants("POST", "/rollouts/1/pause", `{}`, 409, `pause does not fit`)
	w.wants("GET", "/devices/pump-7/why", "", 200, `"verdict":"paused"`)
	w.wants("POST", "/rollouts/1/resume", `{}`, 200, `"state":"running"`)
	w.wants("POST", "/rollouts/1/force", `{}`, 200, `"phase":2`)
	w.wants("POST", "/rollouts/1/devices/pump-7/force", "", 200, `"id":"pump-7"`)
	w.wants("POST", "/rollouts/1/devices/nobody/force", "", 404, `no device is called nobody`)
	w.wants("POST", "/rollouts/1/explode", `{}`, 422, `"code":"invalid"`)
	w.wants("POST", "/rollouts/1/cancel", `{}`, 200, `"state":"cancelled"`)
	w.wants("DELETE", "/groups/beta", "", 200, `{"name":"beta"}`)
	w.wants("GET", "/groups", "", 200, `{"groups":[]}`)
	w.wants("GET", "/devices/pump-7/why", "", 200, `"verdict":"not_targeted"`)
	w.wants("POST", "/policies", `{"product":"other","rollouts_only":true}`, 200, `"rollouts_only":true`)
}

// wants calls and wants a status and each of the parts.
func (w *world) wants(method, path, body string, status int, parts ...string) {
	w.t.Helper()
	rec := w.do(method, path, body)
	if rec.Code != status {
		w.t.Errorf("%s %s: status %d, not %d: %s", method, path, rec.Code, status, rec.Body)
	}
	for _, p := range parts {
		if !strings.Contains(rec.Body.String(), p) {
			w.t.Errorf("%s %s: %s has no %s", method, path, rec.Body, p)
		}
	}
}
