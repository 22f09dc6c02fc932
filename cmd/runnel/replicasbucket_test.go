package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/blob/s3test"
	"github.com/runnel-fota/runnel/sim/board"
)

// bucketImage is long enough that a stream is cut in its middle.
const bucketImage = 400 << 10

// Two servers share a database and a bucket, and nothing else. One that took a release is
// killed once it said so, and a board has it from the other; a server is killed in the middle of
// a stream that it sends, and the board has the rest from the one that is left. Afterwards
// everything is in the bucket and the database, and nothing is left over.
func TestS3Replicas(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	storage := s3test.Start(t)
	var log bytes.Buffer
	var mu sync.Mutex
	s := newReplicaSet(t, 2, &locked{mu: &mu, w: &log}, storage.URL("pumps"))
	said := func() string {
		mu.Lock()
		defer mu.Unlock()
		return log.String()
	}
	defer func() {
		if t.Failed() {
			t.Log(said())
		}
	}()
	o := &operator{t: t, ctx: ctx, bin: s.bin, dir: t.TempDir(), token: s.token}
	for _, version := range []string{"A", "B", "C"} {
		img, err := board.BuildImage(board.ImageSpec{Size: bucketImage, Chip: esp32.ChipESP32, Project: "pump", Version: version, Behave: "ok", Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(o.dir, version+".bin"), img, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o.run("keys init keys --no-passphrase --product acme/pump")
	o.run("sign B.bin --product acme/pump --version B --sequence 1 --key keys/release.key --keylist keys/keylist.cose --yes -o b.runnel")
	o.run("sign C.bin --after b.runnel --version C --key keys/release.key --yes -o c.runnel")

	o.server = s.at(0)
	o.run("keys publish keys")
	o.run("push b.runnel")
	if err := s.end(0, syscall.SIGKILL); err == nil {
		t.Fatal("server 0 ended in peace")
	}
	o.server = s.at(1)
	o.run("devices add pump-1 --product acme/pump --new-native-key -o pump-1.key")
	o.run("board new --flash board.bin --app A.bin")
	const runBoard = "board run --flash board.bin --id pump-1 --key-file pump-1.key --product acme/pump --root keys/root.pub --once --json"
	if out := o.run(runBoard); !strings.Contains(out, `"event":"confirmed","slot":"ota_1"`) {
		t.Fatal(out)
	}

	// The first comes back with an empty disk. Whoever sends the stream first is killed at it.
	if err := os.RemoveAll(s.cache(0)); err != nil {
		t.Fatal(err)
	}
	if err := s.start(0); err != nil {
		t.Fatal(err)
	}
	o.run("push c.runnel") // at the other
	var once sync.Once
	killed := -1
	streams := map[int]int{} // asked of each
	s.mu.Lock()
	s.answered = func(i int, res *http.Response) error {
		if !strings.HasPrefix(res.Request.URL.Path, "/r1/streams/") {
			return nil
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		streams[i]++
		once.Do(func() {
			killed = i
			res.Body = &cutBody{ReadCloser: res.Body, left: bucketImage / 4, cut: func() { _ = s.end(i, syscall.SIGKILL) }} // says that it was killed
		})
		return nil
	}
	s.mu.Unlock()
	o.server = s.front.URL
	if out := o.run(runBoard); !strings.Contains(out, `"event":"confirmed","slot":"ota_0"`) {
		t.Fatal(out)
	}
	s.mu.Lock()
	if killed < 0 || s.each[killed].cmd != nil || streams[1-killed] == 0 {
		t.Errorf("server %d was killed, streams were asked of each: %v", killed, streams)
	}
	s.mu.Unlock()

	o.environ = []string{databaseEnv + "=" + s.pg.URL(s.database)}
	check := "fsck --secret-file " + s.secretFile() + " --blobs " + storage.URL("pumps")
	if out := o.run(check); !strings.Contains(out, "8 images, streams and manifests checked, 0 findings") {
		t.Error(out)
	}
	if err := s.end(1-killed, syscall.SIGTERM); err != nil {
		t.Errorf("the server that is left did not stop in peace: %v", err)
	}
	if strings.Contains(said(), s.pg.Password) || strings.Contains(said(), s3test.SecretKey) {
		t.Error("a password is in the log")
	}
}

// operator runs the program in a folder.
type operator struct {
	t       *testing.T
	ctx     context.Context // of the one test that the operator is for
	bin     string
	dir     string
	server  string
	token   string
	environ []string
}

// run runs one command, which has to succeed, and answers what it printed.
func (o *operator) run(args string) string {
	o.t.Helper()
	cmd := exec.CommandContext(o.ctx, o.bin, strings.Fields(args)...)
	cmd.Dir = o.dir
	cmd.Env = append(append(os.Environ(), "RUNNEL_SERVER="+o.server, "RUNNEL_TOKEN="+o.token), o.environ...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		o.t.Fatalf("runnel %s: %v\n%s", args, err, out)
	}
	return string(out)
}

// cutBody ends in its middle, and calls cut there.
type cutBody struct {
	io.ReadCloser
	left int // bytes until then
	cut  func()
}

func (c *cutBody) Read(b []byte) (int, error) {
	if c.left == 0 {
		c.cut()
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}
