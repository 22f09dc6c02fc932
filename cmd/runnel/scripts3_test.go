package main

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/runnel-fota/runnel/internal/blob/s3test"
	"github.com/runnel-fota/runnel/internal/client"
)

// TestS3Scripts runs testdata/s3 with an S3-compatible server beside: $BLOBS is its
// bucket. The commands of TestScripts, and
//
//	s3 stop | s3 again      the storage goes away, and comes back
//	object NAME FILE        writes an object past the server
//	spoilobjects            flips a bit of each blob in the bucket
//	stream RELEASE STATUS   asks for the stream of a release, of which 'release show --json' said so
//	location RELEASE        wants a redirect to the bucket, and the stream there
func TestS3Scripts(t *testing.T) {
	scripts, err := filepath.Glob(filepath.Join("testdata", "s3", "*.txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	for _, script := range scripts { // each with a storage of its own, that it may stop
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) { runS3Script(t, script) })
	}
}

func runS3Script(t *testing.T, script string) {
	storage := s3test.Start(t)
	servers := &scriptServers{running: map[*testscript.TestScript]*exec.Cmd{}}
	commands := servers.commands()
	commands["s3"] = func(ts *testscript.TestScript, _ bool, args []string) {
		switch strings.Join(args, " ") {
		case "stop":
			storage.Stop()
		case "again":
			storage.Again()
		default:
			ts.Fatalf("s3 stop|again")
		}
	}
	commands["object"] = func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Check(os.WriteFile(storage.File(filepath.Join(ts.Getenv("PREFIX"), args[0])), []byte(ts.ReadFile(args[1])), 0o644))
	}
	commands["spoilobjects"] = func(ts *testscript.TestScript, _ bool, _ []string) {
		blobs, err := filepath.Glob(storage.File(filepath.Join(ts.Getenv("PREFIX"), strings.Repeat("[0-9a-f]", 64))))
		ts.Check(err)
		if len(blobs) == 0 {
			ts.Fatalf("no blob in the bucket")
		}
		for _, path := range blobs {
			b, err := os.ReadFile(path)
			ts.Check(err)
			b[len(b)/2] ^= 1
			ts.Check(os.WriteFile(path, b, 0o644))
		}
	}
	commands["stream"] = scriptStream
	commands["location"] = scriptLocation
	testscript.Run(t, testscript.Params{
		Files: []string{script},
		Setup: func(env *testscript.Env) error {
			for k, v := range s3test.Env() {
				env.Setenv(k, v)
			}
			prefix := filepath.Base(env.WorkDir)
			env.Setenv("PREFIX", prefix)
			env.Setenv("BLOBS", storage.URL(prefix))
			return nil
		},
		Cmds: commands,
	})
}

// get asks for something and follows no redirect.
func get(ts *testscript.TestScript, url string) *http.Response {
	plain := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := plain.Get(url)
	ts.Check(err)
	resp.Body.Close()
	return resp
}

// streamAt is where the server has a release's stream.
func streamAt(ts *testscript.TestScript, file string) string {
	var d client.ReleaseDetail
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(file)), &d))
	if len(d.Streams) == 0 {
		ts.Fatalf("%s has no stream", file)
	}
	return ts.Getenv("RUNNEL_SERVER") + "/r1/streams/" + d.Streams[0].Digest
}

func scriptStream(ts *testscript.TestScript, _ bool, args []string) {
	resp := get(ts, streamAt(ts, args[0]))
	if strconv.Itoa(resp.StatusCode) != args[1] || (resp.Header.Get("Retry-After") != "") != (args[1] == "503") {
		ts.Fatalf("status %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
}

func scriptLocation(ts *testscript.TestScript, _ bool, args []string) {
	at := streamAt(ts, args[0])
	resp := get(ts, at)
	to := resp.Header.Get("Location")
	if resp.StatusCode != http.StatusFound || !strings.Contains(to, "X-Amz-Signature=") || resp.Header.Get("Cache-Control") != "no-store" {
		ts.Fatalf("status %d, to %s", resp.StatusCode, to)
	}
	if got := get(ts, to); got.StatusCode != http.StatusOK {
		ts.Fatalf("there: status %d", got.StatusCode)
	}
	if got := get(ts, at+"?origin=1"); got.StatusCode != http.StatusOK {
		ts.Fatalf("the origin: status %d", got.StatusCode)
	}
}
