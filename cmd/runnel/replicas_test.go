package main

import (
	"context"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	replicaRounds      = 6
	shortReplicaRounds = 3
	// mostReplicaTicks is as mostTicks, of requests that go to several servers.
	mostReplicaTicks = 400
	// outageTicks is how many requests begin or end before what was broken is mended.
	outageTicks = 120
)

// Boards of both wires update and an operator publishes over three servers on one database,
// each request at the next server, while in turn a server is killed, one is cut off from the
// database, and the database itself is killed: nothing that anybody was told is lost, and
// every board ends on the newest release.
func TestReplicas(t *testing.T) {
	seed := tortureSeed(t)
	rounds := replicaRounds
	if testing.Short() {
		rounds = shortReplicaRounds
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute+time.Duration(rounds)*30*time.Second)
	defer cancel()
	bin, err := exec.LookPath("runnel")
	if err != nil {
		t.Fatal(err)
	}
	k := newTorture(t, t.TempDir(), bin, seed)
	s := newReplicaSet(t, 3, &locked{mu: &k.mu, w: k.log}, "")
	k.url, k.token = s.front.URL, s.token
	close(k.up)
	begun := time.Now()
	f := newTortureFleet(ctx, k)
	wait := func(round int, what string, ticks int) {
		t.Helper()
		due := make(chan struct{})
		k.after(ticks, func() { close(due) })
		select {
		case <-due:
		case err := <-f.failed:
			t.Fatalf("round %d, %s: %v\n%s", round, what, err, k.said())
		case <-ctx.Done():
			t.Fatalf("round %d, %s: nothing happens any more\n%s", round, what, k.said())
		}
	}
	for round := range rounds {
		wait(round, "before", k.between(1, mostReplicaTicks))
		k.mu.Lock()
		k.pushed = 0
		k.mu.Unlock()
		which := k.between(0, len(s.each)-1)
		switch round % 3 {
		case 0:
			_ = s.end(which, syscall.SIGKILL) // says that it was killed
			wait(round, "killed", outageTicks)
			if err := s.start(which); err != nil {
				t.Fatal(err)
			}
		case 1:
			s.each[which].cable.cut()
			wait(round, "cut off", outageTicks)
			s.each[which].cable.mend()
		case 2:
			s.pg.Kill(t)
			wait(round, "without a database", outageTicks)
			s.pg.Restart(t)
		}
		store := s.store(ctx)
		k.verifyTold(ctx, store.Store, s.stored)
		store.Close()
		if t.Failed() {
			t.Fatalf("round %d\n%s", round, k.said())
		}
	}
	f.finish(ctx)
	k.checkShown(ctx)
	for i := range s.each {
		if err := s.end(i, syscall.SIGTERM); err != nil {
			t.Errorf("server %d did not stop in peace: %v", i, err)
		}
	}
	store := s.store(ctx)
	defer store.Close()
	k.verifyTold(ctx, store.Store, s.stored)
	if strings.Contains(k.said(), s.pg.Password) {
		t.Error("the database's password is in the log")
	}
	if testing.Verbose() {
		t.Log(k.said())
	}
	t.Logf("%d rounds, %d pushes acknowledged, %d pushing clients killed, %d reports acknowledged, %d updates confirmed, %.1f s",
		rounds, k.pushes, k.clientsKilled, k.reports, k.confirmed, time.Since(begun).Seconds())
	boards := tortureV1Boards + tortureNativeBoards
	if k.pushes < rounds/2 || k.reports < boards || k.confirmed < boards {
		t.Error("too little came to pass for this to be a proof of anything")
	}
}

func (s *replicaSet) stored(ctx context.Context, id string, name reportName) bool {
	s.t.Helper()
	return s.pg.Count(s.t, s.database, "SELECT count(*) FROM native_reports WHERE device = $1 AND boot = $2 AND number = $3", id, int64(name.boot), int64(name.number)) == 1
}
