package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release/releasetest"
	"github.com/runnel-fota/runnel/sim/board"
)

// signedPump is an image and its signed release.
func signedPump(t *testing.T) (image, file []byte) {
	t.Helper()
	image, err := board.BuildImage(board.ImageSpec{Size: 200 << 10, Chip: esp32.ChipESP32C3, Project: "pump", Version: "1.0", Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return image, releasetest.File(t, nil, releasetest.Manifest(t, "acme/pump", "1.0", image), image, nil)
}

// publishPump publishes it on a server that has its key list.
func publishPump(t *testing.T, url, token string) (image []byte, d client.ReleaseDetail) {
	t.Helper()
	c, err := client.New(url, token)
	if err != nil {
		t.Fatal(err)
	}
	image, file := signedPump(t)
	if _, _, err := c.PublishKeyList(t.Context(), releasetest.SealList(t, releasetest.List(1, "acme/pump"))); err != nil {
		t.Fatal(err)
	}
	p, err := c.PublishRelease(t.Context(), bytes.NewReader(file), int64(len(file)), fleet.Publication{})
	if err != nil {
		t.Fatal(err)
	}
	if d, err = c.ReleaseDetail(t.Context(), p.Release.ID); err != nil || len(d.Streams) != 1 {
		t.Fatal(d, err)
	}
	return image, d
}

func fetch(t *testing.T, url string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

// A release file in, its stream and its manifest out; and the image, which is for
// its devices, not.
func TestServeStreams(t *testing.T) {
	url, token, stop := inProcess(t, "--data", filepath.Join(t.TempDir(), "d"), "--v1-open-operator")
	image, d := publishPump(t, url, token)
	want, _ := releasetest.Stream(t, image, 1024)
	resp, got := fetch(t, url+"/r1/streams/"+d.Streams[0].Digest)
	if resp.StatusCode != 200 || !bytes.Equal(got, want) || resp.Header.Get("ETag") != `"`+d.Streams[0].Digest+`"` {
		t.Errorf("%d, %d bytes, %v", resp.StatusCode, len(got), resp.Header)
	}
	resp, got = fetch(t, url+"/r1/streams/"+d.Streams[0].Digest, "Range", fmt.Sprintf("bytes=%d-", 7*1056-32))
	if resp.StatusCode != 206 || !bytes.Equal(got, want[7*1056-32:]) {
		t.Errorf("resumed: %d, %d bytes", resp.StatusCode, len(got))
	}
	if resp, got = fetch(t, url+"/r1/manifests/"+d.ManifestDigest); resp.StatusCode != 200 || fmt.Sprintf("%x", sha256.Sum256(got)) != d.ManifestDigest {
		t.Errorf("manifest: %d, %d bytes", resp.StatusCode, len(got))
	}
	for _, path := range []string{"/r1/streams/" + d.Digest, "/r1/manifests/" + d.Digest, "/r1/streams/" + d.ManifestDigest} {
		if resp, got := fetch(t, url+path); resp.StatusCode != 404 || bytes.Contains(got, image[:16]) {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}

	// The v1 upload of an unsigned image of a signed product.
	body, _ := json.Marshal(map[string]any{"product": "acme/pump", "version": "2.0", "size": len(image), "hash": fmt.Sprintf("%x", sha256.Sum256(image)),
		"firmware_data": base64.StdEncoding.EncodeToString(image)})
	post, err := http.Post(url+"/api/cloud/fota/upload", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(post.Body)
	post.Body.Close()
	if post.StatusCode != 403 || !bytes.Contains(answer, []byte(`"code":"forbidden"`)) || !bytes.Contains(answer, []byte("acme/pump takes signed releases only: sign the image")) {
		t.Errorf("v1 upload: %d %s", post.StatusCode, answer)
	}
	stop()
}

func TestServeStreamRedirect(t *testing.T) {
	url, token, stop := inProcess(t, "--data", filepath.Join(t.TempDir(), "d"), "--stream-redirect", "https://cdn.example.com/")
	_, d := publishPump(t, url, token)
	at := "/r1/streams/" + d.Streams[0].Digest
	if resp, _ := fetch(t, url+at); resp.StatusCode != 302 || resp.Header.Get("Location") != "https://cdn.example.com/"+d.Streams[0].Digest {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	if resp, got := fetch(t, url+at+"?origin=1"); resp.StatusCode != 200 || int64(len(got)) != d.Streams[0].Length {
		t.Errorf("%d, %d bytes", resp.StatusCode, len(got))
	}
	stop()
	for _, args := range []string{"--stream-redirect cdn", "--stream-redirect https://x/?a=b", "--send-buffer -1"} {
		var out bytes.Buffer
		if code := run(t.Context(), append([]string{"serve", "--data", t.TempDir()}, strings.Fields(args)...), nil, &out, &out); code != 2 || !strings.Contains(out.String(), strings.Fields(args)[0]) {
			t.Errorf("%s: %d %s", args, code, out.String())
		}
	}
}

// An upload whose connection breaks in the middle leaves nothing, and the same
// file goes in afterwards.
func TestServeInterruptedUpload(t *testing.T) {
	data := filepath.Join(t.TempDir(), "d")
	url, token, stop := inProcess(t, "--data", data)
	c, err := client.New(url, token)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.PublishKeyList(t.Context(), releasetest.SealList(t, releasetest.List(1, "acme/pump"))); err != nil {
		t.Fatal(err)
	}
	_, file := signedPump(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /api/v1/releases HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/vnd.runnel.release\r\nContent-Length: %d\r\n\r\n", token, len(file))
	if _, err := conn.Write(file[:len(file)/2]); err != nil {
		t.Fatal(err)
	}
	// Half-closed: the answer says what became of it.
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	conn.Close()
	if err != nil || !bytes.Contains(answer, []byte("the upload broke off")) {
		t.Errorf("%q, %v", answer, err)
	}
	files := func() (names []string) {
		filepath.WalkDir(filepath.Join(data, "blobs"), func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				names = append(names, e.Name())
			}
			return nil
		})
		return names
	}
	if left := files(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if list, err := c.Releases(t.Context(), "", ""); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
	if p, err := c.PublishRelease(t.Context(), bytes.NewReader(file), int64(len(file)), fleet.Publication{}); err != nil || !p.Created || len(files()) != 2 {
		t.Errorf("%+v %v %v", p, err, files())
	}
	if _, err := c.PublishRelease(t.Context(), bytes.NewReader(file[:len(file)-512]), int64(len(file)-512), fleet.Publication{}); fleet.CodeOf(err) != fleet.CodeInvalid {
		t.Errorf("a cut file: %v", err)
	}
	stop()
}
