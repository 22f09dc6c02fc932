package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/blob/s3test"
	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/datadir"
	"github.com/runnel-fota/runnel/internal/devicehttp"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/sqlite"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

const (
	// tortureRoundsEnv is how often the server is killed; make torture-server has more of it.
	tortureRoundsEnv     = "RUNNEL_TORTURE_ROUNDS"
	tortureSeedEnv       = "RUNNEL_TORTURE_SEED"
	defaultTortureRounds = 10
	shortTortureRounds   = 3
	tortureV1Boards      = 4
	tortureNativeBoards  = 2
	// A server is killed after so many beginnings and ends of requests at most: within a
	// download, a push, a report, or its own start.
	mostTicks = 600
	// pushesARound bounds what the disk has to hold.
	pushesARound = 4
)

// torture is a server that is killed again and again, and all who speak to it. It
// notes what they were told: that must be true for ever.
type torture struct {
	t    *testing.T
	dir  string
	data string
	bin  string // the real program

	bucket string // where images and streams are; "": in the data folder

	mu       sync.Mutex
	rnd      *rand.Rand
	cmd      *exec.Cmd
	url      string
	token    string
	up       chan struct{} // closed while the server runs
	ticks    int
	triggers map[int][]func() // by tick
	log      *bytes.Buffer    // of all servers
	pushed   int              // in this round

	// What was acknowledged.
	releases map[string]string          // product and version to digest
	devices  map[string]bool            // by id
	nonces   map[string]uint64          // highest of a v1 report, by device
	names    map[string]reportName      // latest of a native report, by device
	done     map[string]map[string]bool // device to versions whose confirmation was acknowledged

	kills, reports, pushes, clientsKilled, confirmed int
}

// reportName is a native report's, as it is stored.
type reportName struct{ boot, number uint32 }

func (k *torture) between(least, most int) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return least + k.rnd.IntN(most-least+1)
}

// after calls f once so many more ticks have come.
func (k *torture) after(ticks int, f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.triggers[k.ticks+ticks] = append(k.triggers[k.ticks+ticks], f)
}

// tick is the beginning or the end of a request.
func (k *torture) tick() {
	k.mu.Lock()
	k.ticks++
	due := k.triggers[k.ticks]
	delete(k.triggers, k.ticks)
	k.mu.Unlock()
	for _, f := range due {
		f()
	}
}

// server is where the server is, once it runs.
func (k *torture) server(ctx context.Context) (url, token string, err error) {
	for {
		k.mu.Lock()
		up, url, token := k.up, k.url, k.token
		k.mu.Unlock()
		select {
		case <-up:
			return url, token, nil
		default:
		}
		select {
		case <-up:
		case <-ctx.Done():
			return "", "", ctx.Err()
		}
	}
}

// start starts the server and waits for its first line.
func (k *torture) start(ctx context.Context) {
	k.t.Helper()
	args := []string{"serve", "--json", "--data", k.data, "--listen", "127.0.0.1:0"}
	if k.bucket != "" {
		args = append(args, "--blobs", k.bucket)
	}
	cmd := exec.CommandContext(ctx, k.bin, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		k.t.Fatal(err)
	}
	cmd.Stderr = &locked{mu: &k.mu, w: k.log}
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	var first struct {
		URL   string `json:"url"`
		Token string `json:"admin_token"`
	}
	if err == nil {
		err = json.Unmarshal(line, &first)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		k.t.Fatalf("the server did not start: %v\n%s", err, k.said())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cmd, k.url, k.pushed = cmd, first.URL, 0
	if first.Token != "" {
		k.token = first.Token
	}
	close(k.up)
}

// end ends the server, and returns once it has ended.
func (k *torture) end(sig syscall.Signal) error {
	k.mu.Lock()
	cmd := k.cmd
	k.up = make(chan struct{})
	k.mu.Unlock()
	if err := cmd.Process.Signal(sig); err != nil {
		return err
	}
	return cmd.Wait()
}

func (k *torture) said() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.log.String()
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// second wants another server on the folder to be refused.
func (k *torture) second(ctx context.Context) {
	k.t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, k.bin, "serve", "--data", k.data, "--listen", "127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitFailed || !strings.Contains(out.String(), "another server uses the data folder") {
		k.t.Fatalf("a second server on the folder: %v\n%s", err, &out)
	}
}

// verify looks at the folder of the server that is not running: all that anybody
// was told is there, and nothing is damaged.
func (k *torture) verify(ctx context.Context, harmlessToo bool) {
	k.t.Helper()
	check := &fleetCheck{blobs: k.bucket}
	if err := check.folder(ctx, k.data); err != nil {
		k.t.Fatalf("fsck: %v", err)
	}
	for _, f := range check.faults {
		if !f.Harmless || harmlessToo {
			k.t.Errorf("fsck: %s", f.Message)
		}
	}
	d, err := datadir.OpenToCheck(k.data)
	if err != nil {
		k.t.Fatal(err)
	}
	defer d.Close()
	secret, err := d.Secret(nil)
	if err != nil {
		k.t.Fatal(err)
	}
	s, err := sqlite.OpenToCheck(ctx, sqlite.Options{Path: d.Database(), Secret: secret})
	if err != nil {
		k.t.Fatal(err)
	}
	defer s.Close()
	k.verifyTold(ctx, s.Store, k.stored)
}

// verifyTold wants the store to know all that anybody was told; stored says whether it has a
// native report of that name.
func (k *torture) verifyTold(ctx context.Context, s *sqlstore.Store, stored func(ctx context.Context, id string, name reportName) bool) {
	k.t.Helper()
	// What is told after this is not looked for: the servers may be running.
	k.mu.Lock()
	releases, devices, nonces, names, done := maps.Clone(k.releases), maps.Clone(k.devices), maps.Clone(k.nonces), maps.Clone(k.names), map[string]map[string]bool{}
	for id, versions := range k.done {
		done[id] = maps.Clone(versions)
	}
	k.mu.Unlock()
	list, err := s.ListReleases(ctx, "")
	if err != nil {
		k.t.Fatal(err)
	}
	have := map[string]string{}
	for _, r := range list {
		have[r.Product+" "+r.Version] = r.Image.Digest.String()
	}
	for name, digest := range releases {
		if have[name] != digest {
			k.t.Errorf("%s was acknowledged with %s, and is %q", name, digest, have[name])
		}
	}
	for id := range devices {
		dev, err := s.Device(ctx, id)
		if err != nil {
			k.t.Errorf("%s was added: %v", id, err)
		}
		// A report's nonce is stored in its transaction; over the native wire its name. There the
		// same report again is acknowledged without a change, also under a higher nonce.
		if told := nonces[id]; dev.Nonce < told {
			k.t.Errorf("%s: its report with nonce %d was acknowledged, and the highest is %d", id, told, dev.Nonce)
		}
		if name, ok := names[id]; ok && !stored(ctx, id, name) {
			k.t.Errorf("%s: its report %+v was acknowledged, and is not there", id, name)
		}
		if len(done[id]) == 0 {
			continue
		}
		events, _, err := s.Events(ctx, id, 1000)
		if err != nil {
			k.t.Fatal(err)
		}
		known := map[string]bool{}
		for _, e := range events {
			if e.Name == fleet.EventCompleted {
				known[e.Version] = true
			}
			// What was offered over v1 is in the server's memory. Of one that was killed a report may
			// come to stand with the newest release, and says then what it was about.
			if m := aboutVersion.FindStringSubmatch(e.Detail); m != nil && e.Name == fleet.EventBootStatus {
				known[m[1]] = true
			}
		}
		for version := range done[id] {
			if !known[version] && len(events) < 1000 {
				k.t.Errorf("%s: that it runs %s was acknowledged, and is nowhere", id, version)
				for _, e := range events {
					k.t.Logf("  %s %s %s %s", e.Time.Format("15:04:05.000"), e.Version, e.Name, e.Detail)
				}
			}
		}
	}
}

func (k *torture) stored(ctx context.Context, id string, name reportName) bool {
	k.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(k.data, "runnel.db")+"?mode=ro")
	if err != nil {
		k.t.Fatal(err)
	}
	defer db.Close()
	var n int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM native_reports WHERE device = ? AND boot = ? AND number = ?", id, name.boot, name.number).Scan(&n); err != nil {
		k.t.Fatal(err)
	}
	return n == 1
}

var aboutVersion = regexp.MustCompile(`^success.*\(about (.*)\)$`)

func newTorture(t *testing.T, dir, bin string, seed uint64) *torture {
	return &torture{t: t, dir: dir, data: filepath.Join(dir, "data"), bin: bin, rnd: rand.New(rand.NewPCG(seed, 0)), up: make(chan struct{}),
		triggers: map[int][]func(){}, log: &bytes.Buffer{}, releases: map[string]string{}, devices: map[string]bool{}, nonces: map[string]uint64{}, names: map[string]reportName{},
		done: map[string]map[string]bool{}}
}

// tortureSeed is the one that is asked for, or a new one, which it says.
func tortureSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(tortureSeedEnv); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d (%s has the same choices again; what comes when is the machine's)", seed, tortureSeedEnv)
	return seed
}

func tortureRounds(t *testing.T) int {
	t.Helper()
	if s := os.Getenv(tortureRoundsEnv); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if testing.Short() {
		return shortTortureRounds
	}
	return defaultTortureRounds
}

// The server is killed at random while boards update and an operator publishes,
// also with clients that are killed, and while a second server wants the folder:
// nothing that anybody was told is lost, nothing is half there, every board ends
// on the newest release.
func TestTortureServer(t *testing.T) { tortureServer(t, "") }

// The same with images in a bucket, half of the time without the copies that the
// server before had.
func TestS3TortureServer(t *testing.T) { tortureServer(t, s3test.Start(t).URL("torture")) }

func tortureServer(t *testing.T, bucket string) {
	t.Helper()
	rounds, seed := tortureRounds(t), tortureSeed(t)
	bin, err := exec.LookPath("runnel")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(rounds)*10*time.Second)
	defer cancel()
	dir := t.TempDir()
	k := newTorture(t, dir, bin, seed)
	k.bucket = bucket
	begun := time.Now()
	k.start(ctx)
	f := newTortureFleet(ctx, k)
	killed := make(chan error, 1)
	for round := range rounds {
		if round > 0 {
			k.start(ctx)
		}
		k.second(ctx)
		k.after(k.between(1, mostTicks), func() { killed <- k.end(syscall.SIGKILL) })
		select {
		case err := <-killed:
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Exited() {
				t.Fatalf("round %d: the server ended by itself: %v\n%s", round, err, k.said())
			}
		case err := <-f.failed:
			t.Fatalf("round %d: %v\n%s", round, err, k.said())
		case <-ctx.Done():
			t.Fatalf("round %d: nothing happens any more\n%s", round, k.said())
		}
		k.kills++
		k.verify(ctx, false)
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
		if bucket != "" && round%2 == 1 {
			if err := os.RemoveAll(filepath.Join(k.data, "cache")); err != nil {
				t.Fatal(err)
			}
		}
	}
	k.start(ctx)
	f.finish(ctx)
	k.checkShown(ctx)
	if err := k.end(syscall.SIGTERM); err != nil {
		t.Errorf("the server did not stop in peace: %v", err)
	}
	k.verify(ctx, bucket == "") // what nobody refers to stays in a bucket for a day
	if strings.Contains(k.said(), "level=ERROR") || strings.Contains(k.said(), `"level":"ERROR"`) {
		t.Errorf("the server had something to say:\n%s", k.said())
	}
	t.Logf("%d rounds, %d kills, %d pushes acknowledged, %d pushing clients killed, %d reports acknowledged, %d boards, %d updates confirmed, %.1f s",
		rounds, k.kills, k.pushes, k.clientsKilled, k.reports, tortureV1Boards+tortureNativeBoards, k.confirmed, time.Since(begun).Seconds())
	if k.kills != rounds || k.pushes < rounds/2 || k.reports < tortureV1Boards+tortureNativeBoards || k.confirmed < tortureV1Boards+tortureNativeBoards {
		t.Error("too little came to pass for this to be a proof of anything")
	}
}

// checkShown wants the server to show every board's last deployment as confirmed.
func (k *torture) checkShown(ctx context.Context) {
	k.t.Helper()
	c, err := k.client(ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	list, err := c.Devices(ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	boards := 0
	for _, d := range list {
		if !strings.HasPrefix(d.ID, "board-") {
			continue
		}
		boards++
		if d.Deployment == nil || d.Deployment.State != "confirmed" || !d.Deployment.Proven {
			k.t.Errorf("%s: %s", d.ID, deploymentOf(d))
		}
	}
	if boards != tortureV1Boards+tortureNativeBoards {
		k.t.Errorf("%d boards are known", boards)
	}
}

func (k *torture) client(ctx context.Context) (*client.Client, error) {
	url, token, err := k.server(ctx)
	if err != nil {
		return nil, err
	}
	return client.New(url, token)
}

func (k *torture) device(ctx context.Context) (*devicehttp.Client, error) {
	url, _, err := k.server(ctx)
	if err != nil {
		return nil, err
	}
	c, err := devicehttp.New(url)
	if err == nil {
		c.Timeout = 5 * time.Second
	}
	return c, err
}

// acknowledged notes a push.
func (k *torture) acknowledged(product, version, digest string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.releases[product+" "+version] = digest
	k.pushes++
}

func (k *torture) tokenOf() string { return fmt.Sprintf("RUNNEL_TOKEN=%s", k.token) }
