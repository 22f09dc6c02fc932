package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/runnel-fota/runnel/internal/client"
)

const serveKey = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

// buildRunnel builds the program for tests that start it as a process.
func buildRunnel(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "runnel.exe")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

type process struct {
	cmd   *exec.Cmd
	url   string
	token string
	log   bytes.Buffer
}

func startServer(t *testing.T, bin, data string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(bin, "serve", "--data", data, "--listen", "127.0.0.1:0", "--json", "--v1-silent-device", "old")}
	p.cmd.Stderr = &p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	var first struct {
		URL   string `json:"url"`
		Token string `json:"admin_token"`
	}
	if err != nil || json.Unmarshal(line, &first) != nil || first.URL == "" {
		t.Fatalf("first line is %q, %v; log: %s", line, err, p.log.String())
	}
	p.url, p.token = first.URL, first.Token
	return p
}

// A server that is killed keeps what it acknowledged; a second one on its folder
// is refused; the token is shown once; SIGTERM ends it with status 0.
func TestServeKilled(t *testing.T) {
	bin, data := buildRunnel(t), filepath.Join(t.TempDir(), "data")
	p := startServer(t, bin, data)
	if p.token == "" {
		t.Fatal("the first start showed no token")
	}
	if st, err := os.Stat(filepath.Join(data, "admin.token")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("admin.token: %v, %v", st, err)
	}
	token := p.token
	c, err := client.New(p.url, token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddDevice(t.Context(), "old", "", serveKey); err != nil {
		t.Fatal(err)
	}
	second := exec.Command(bin, "serve", "--data", data, "--listen", "127.0.0.1:0")
	if out, err := second.CombinedOutput(); err == nil || !strings.Contains(string(out), "another server uses") {
		t.Errorf("a second server: %v, %s", err, out)
	}
	resp, err := http.Post(p.url+"/api/inverter/fota/status", "application/json", strings.NewReader(`{"fota_status":{"error":"battery low"}}`))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != `{"status":"success"}` {
		t.Fatalf("report: %s", body)
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.cmd.Wait()

	p2 := startServer(t, bin, data)
	if p2.token != "" {
		t.Error("the token is shown again")
	}
	c, err = client.New(p2.url, token)
	if err != nil {
		t.Fatal(err)
	}
	events, _, err := c.Timeline(t.Context(), "old", 10)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, e := range events {
		found = found || strings.Contains(e.Detail, "battery low") && !e.Proven
	}
	if !found {
		t.Errorf("the acknowledged report is lost: %+v", events)
	}
	if err := p2.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p2.cmd.Wait(); err != nil {
		t.Errorf("stopped with %v; log: %s", err, p2.log.String())
	}
	if log := p.log.String() + p2.log.String(); strings.Contains(log, token) || strings.Contains(log, serveKey) {
		t.Error("the log has a secret")
	}
}

// The operator's verbs over a real server, and the statuses they exit with.
func TestVerbs(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	serverOut, w := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"serve", "--data", filepath.Join(t.TempDir(), "d"), "--listen", "127.0.0.1:0", "--json"}, nil, w, io.Discard)
		w.Close()
	}()
	line, err := bufio.NewReader(serverOut).ReadBytes('\n')
	var first struct {
		URL   string `json:"url"`
		Token string `json:"admin_token"`
	}
	if err != nil || json.Unmarshal(line, &first) != nil {
		t.Fatalf("first line %q, %v", line, err)
	}
	bad := filepath.Join(t.TempDir(), "bad.bin")
	if err := os.WriteFile(bad, []byte("no image"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("RUNNEL_SERVER", first.URL)
	t.Setenv("RUNNEL_TOKEN", first.Token)
	for _, c := range []struct {
		args  string
		code  int
		shows string // on either stream
	}{
		{"devices", 0, "no devices"},
		{"devices add pump --product acme/pump --psk " + serveKey, 0, "added pump (identity: own)"},
		{"devices add pump --psk " + serveKey, 1, "error: "},
		{"devices add p2 --psk 12", 2, "64 hex digits"},
		{"devices add all --psk " + serveKey, 1, "means every device"},
		{"devices add p3 --product acme/pump", 0, "it has no key"},
		{"devices product-key acme/pump --psk " + serveKey, 0, "warning: "},
		{"devices", 0, "shared"},
		{"devices --json", 0, `"id": "pump"`},
		{"device pump", 0, "device_added"},
		{"device nobody", 1, "error: "},
		{"devices reset-nonce pump", 0, "done for pump"},
		{"devices rollback pump --reason hot", 0, "ordered 1"},
		{"device pump", 0, "go back: hot"},
		{"releases", 0, "no releases"},
		{"releases withdraw 9", 1, "error: "},
		{"push " + bad + " --product p --version 1", 1, "at offset 0"},
		{"push " + bad + " --product p --version 1 --chunk-size 7", 2, "chunk size is 7"},
		{"push " + bad + " --version 1", 2, "--product is missing"},
		{"logs --device pump", 0, "rollback_triggered"},
		{"logs --limit 0", 2, "--limit"},
		{"logs --token wrong", 1, "token"},
	} {
		var out bytes.Buffer
		code := run(t.Context(), strings.Fields(c.args), strings.NewReader(""), &out, &out)
		if code != c.code || !strings.Contains(out.String(), c.shows) {
			t.Errorf("runnel %s: status %d, want %d with %q:\n%s", c.args, code, c.code, c.shows, out.String())
		}
		if strings.Contains(out.String(), serveKey) || strings.Contains(out.String(), first.Token) {
			t.Errorf("runnel %s shows a secret", c.args)
		}
	}
	resp, err := http.Get(first.URL + "/api/v1/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OpenAPI string         `json:"openapi"`
		Paths   map[string]any `json:"paths"`
	}
	err = json.NewDecoder(resp.Body).Decode(&doc)
	resp.Body.Close()
	if err != nil || doc.OpenAPI == "" {
		t.Errorf("openapi.json: %v", err)
	}
	// What the document lists needs a token, but health.
	for path, methods := range doc.Paths {
		for method := range methods.(map[string]any) {
			req, err := http.NewRequest(strings.ToUpper(method), first.URL+strings.NewReplacer("{id}", "1", "{device}", "pump").Replace(path), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if want := map[bool]int{true: 200, false: 401}[path == "/api/v1/health"]; resp.StatusCode != want {
				t.Errorf("%s %s without a token: %d, want %d", method, path, resp.StatusCode, want)
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	if code := <-done; code != 0 {
		t.Errorf("serve ended with %d", code)
	}
	t.Setenv("RUNNEL_TOKEN", "")
	var out bytes.Buffer
	if code := run(t.Context(), []string{"devices"}, nil, &out, &out); code != 2 || !strings.Contains(out.String(), "hint: ") {
		t.Errorf("without a token: %d, %s", code, out.String())
	}
}
