package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// inProcess runs a server here and returns its URL, its token and what ends it.
func inProcess(t *testing.T, args ...string) (url, token string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, w := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, append([]string{"serve", "--listen", "127.0.0.1:0", "--json"}, args...), nil, w, io.Discard)
		w.Close()
	}()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	var first map[string]string
	if err != nil || json.Unmarshal(line, &first) != nil || first["url"] == "" {
		cancel()
		t.Fatalf("the first line is %q, %v", line, err)
	}
	return first["url"], first["admin_token"], func() {
		t.Helper()
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("serve ended with %d", code)
		}
	}
}

// What an old script and an old board do, with no header at all: upload, poll,
// fetch all chunks, report, ask for the rollback flag.
func TestServeOldClients(t *testing.T) {
	data := filepath.Join(t.TempDir(), "d")
	url, token, stop := inProcess(t, "--data", data, "--v1-silent-device", "old", "--v1-open-operator")
	call := func(method, path string, in any, status int) map[string]any {
		t.Helper()
		var body io.Reader
		if in != nil {
			b, err := json.Marshal(in)
			if err != nil {
				t.Fatal(err)
			}
			body = bytes.NewReader(b)
		}
		req, err := http.NewRequest(method, url+path, body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var out map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != status {
			t.Fatalf("%s %s: %d %v, %v", method, path, resp.StatusCode, out, err)
		}
		return out
	}
	call("GET", "/api/inverter/fota/manifest", nil, 401) // not added yet
	var text bytes.Buffer
	if code := run(t.Context(), []string{"devices", "add", "old", "--psk", serveKey, "--server", url, "--token", token}, nil, &text, &text); code != 0 {
		t.Fatal(text.String())
	}
	// An image of another board: the original never looked into one.
	image := bytes.Repeat([]byte("firmware of another board\n"), 200)
	call("POST", "/api/cloud/fota/upload", map[string]any{"version": "1.0", "size": len(image), "hash": fmt.Sprintf("%x", sha256.Sum256(image)), "firmware_data": image}, 200)
	// One that claims to be an ESP32's and is cut is refused, with what and where.
	bad := append([]byte{0xE9}, image...)
	refused := call("POST", "/api/cloud/fota/upload", map[string]any{"version": "1.1", "size": len(bad), "hash": fmt.Sprintf("%x", sha256.Sum256(bad)), "firmware_data": bad}, 400)
	if !strings.Contains(fmt.Sprint(refused["error"]), "at byte ") {
		t.Errorf("refused with %v", refused)
	}
	if files, err := os.ReadDir(filepath.Join(data, "blobs")); err != nil || len(files) != 2 { // the image, and tmp
		t.Errorf("blobs holds %v, %v", files, err)
	}
	m := call("GET", "/api/inverter/fota/manifest", nil, 200)["fota"].(map[string]any)["manifest"].(map[string]any)
	var got []byte
	for n := range int(m["total_chunks"].(float64)) {
		c := call("GET", fmt.Sprintf("/api/inverter/fota/chunk?chunk=%d", n), nil, 200)
		var b []byte
		if err := json.Unmarshal([]byte(`"`+c["data"].(string)+`"`), &b); err != nil || c["mac"] != c["hmac"] {
			t.Fatalf("chunk %d: %v", n, err)
		}
		got = append(got, b...)
	}
	if !bytes.Equal(got, image) || fmt.Sprintf("%x", sha256.Sum256(got)) != m["hash"] {
		t.Errorf("%d bytes came, and they are not the image", len(got))
	}
	report := map[string]any{"fota_status": map[string]any{"chunk_received": 6, "total_chunks": 6, "verified": true}}
	if a := call("POST", "/api/inverter/fota/status", report, 200); a["status"] != "success" {
		t.Errorf("%v", a)
	}
	call("POST", "/api/cloud/fota/rollback", map[string]any{"reason": "too hot"}, 200)
	if a := call("GET", "/api/inverter/fota/rollback-status", nil, 200); a["rollback_required"] != true || a["reason"] != "too hot" {
		t.Errorf("%v", a)
	}
	if a := call("GET", "/api/inverter/fota/rollback-status", nil, 200); a["rollback_required"] != false {
		t.Errorf("again: %v", a)
	}
	if d := call("GET", "/api/cloud/fota/status", nil, 200)["device_status"].(map[string]any)["old"].(map[string]any); d["verified"] != true || d["proven"] != false {
		t.Errorf("%v", d)
	}
	stop()
}

// The line that says ready is not there before the certificate is known to be good.
func TestServeTLS(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	url, _, stop := inProcess(t, "--data", filepath.Join(dir, "d"), "--tls-cert", certFile, "--tls-key", keyFile)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	resp, err := client.Get(url + "/api/v1/health")
	if err != nil || !strings.HasPrefix(url, "https://") || resp.StatusCode != 200 {
		t.Fatalf("%s: %v, %v", url, resp, err)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	stop()

	var out, errOut bytes.Buffer
	args := []string{"serve", "--data", filepath.Join(dir, "d"), "--listen", "127.0.0.1:0", "--json", "--tls-cert", keyFile, "--tls-key", certFile}
	if code := run(t.Context(), args, nil, &out, &errOut); code != 1 || out.Len() != 0 || !strings.Contains(errOut.String(), "certificate") {
		t.Errorf("a bad certificate: status %d, %q, %q", code, out.String(), errOut.String())
	}
}

// How serve can be called wrongly.
func TestServeUsage(t *testing.T) {
	data := filepath.Join(t.TempDir(), "d")
	for _, c := range []struct{ args, shows string }{
		{"", "--data is missing"},
		{"--data D --listen nope", "not an address"},
		{"--data D --listen 127.0.0.1:99999", "not an address"},
		{"--data D --tls-cert c.pem", "go together"},
		{"--data D --listen 0.0.0.0:0 --v1-open-operator", "loopback"},
		{"--data D --listen :0 --v1-open-operator", "loopback"},
		{"--data D --listen example.org:0 --v1-open-operator", "loopback"},
		{"--data D --v1-silent-device all", "means every device"},
		{"--data D --v1-window -1s", "negative"},
		{"--data D --v1-nonce-jump 0", "is 0"},
		{"--data D --max-requests 0", "not above 0"},
		{"--data D --cache-bytes 0", "not above 0"},
		{"--data D x", "unexpected argument"},
	} {
		var out, errOut bytes.Buffer
		args := append([]string{"serve"}, strings.Fields(strings.ReplaceAll(c.args, "D", data))...)
		if code := run(t.Context(), args, nil, &out, &errOut); code != 2 || out.Len() != 0 || !strings.Contains(errOut.String(), c.shows) {
			t.Errorf("%s: status %d, %s%s", c.args, code, out.String(), errOut.String())
		}
	}
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("a wrong call made the data folder: %v", err)
	}
}

// What a person sees: the address, and at the first start the token, which is also
// in a file that only he can read; a product's shared key is warned about.
func TestServeText(t *testing.T) {
	data := filepath.Join(t.TempDir(), "d")
	start := func(between func(url, token string)) (text, log string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		out, w := io.Pipe()
		var errOut bytes.Buffer
		done := make(chan int, 1)
		go func() {
			done <- run(ctx, []string{"serve", "--data", data, "--listen", "127.0.0.1:0"}, nil, w, &errOut)
			w.Close()
		}()
		r := bufio.NewReader(out)
		for !strings.Contains(text, "ctrl-C") {
			line, err := r.ReadString('\n')
			if text += line; err != nil {
				t.Fatalf("%q, %v", text, err)
			}
		}
		url, _, _ := strings.Cut(text[strings.Index(text, "http://"):], "\n")
		token, err := os.ReadFile(filepath.Join(data, "admin.token"))
		if err != nil {
			t.Error(err)
		}
		if between != nil {
			between(url, strings.TrimSpace(string(token)))
		}
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("status %d, %s", code, errOut.String())
		}
		return text, errOut.String()
	}
	var token string
	text, _ := start(func(url, tk string) {
		token = tk
		for _, args := range []string{"devices product-key acme/pump --psk " + serveKey, "devices add p1 --product acme/pump"} {
			var out bytes.Buffer
			if code := run(t.Context(), append(strings.Fields(args), "--server", url, "--token", tk), nil, &out, &out); code != 0 {
				t.Errorf("%s: %s", args, out.String())
			}
		}
	})
	if !strings.Contains(text, token) || len(token) < 40 {
		t.Errorf("the first start does not show the token: %s", text)
	}
	again, log := start(nil)
	if strings.Contains(again, token) || !strings.Contains(again, "Runnel serves at http://127.0.0.1:") {
		t.Errorf("the second start shows: %s", again)
	}
	if !strings.Contains(log, "devices use their product's key") || strings.Contains(log, token) {
		t.Errorf("the second start logs: %s", log)
	}
}
