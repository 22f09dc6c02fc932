package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/runnel-fota/runnel/internal/client"
)

// scriptFleet is a program of the scripts: boards of acme/pump, each by the
// commands that a user would type.
func scriptFleet() {
	for _, n := range os.Args[2:] {
		i, err := strconv.Atoi(n)
		if err != nil {
			panic(err)
		}
		hardware := "r1"
		if i%2 == 0 {
			hardware = "r2"
		}
		id := "pump-" + n
		calls := [][]string{
			{"devices", "add", id, "--product", "acme/pump", "--new-native-key", "-o", id + ".key"},
			{"board", "new", "--flash", id + ".bin", "--app", "a.bin"},
		}
		if os.Args[1] == "poll" {
			calls = [][]string{{"board", "run", "--flash", id + ".bin", "--id", id, "--key-file", id + ".key", "--product", "acme/pump", "--hardware", hardware,
				"--root", "keys/root.pub", "--once", "--plain"}}
		}
		for _, args := range calls {
			if code := run(context.Background(), args, os.Stdin, os.Stdout, os.Stderr); code != exitOK {
				os.Exit(code)
			}
		}
	}
}

// awaitLimit is where a script gives up on a rollout: the server moves them once a second.
const awaitLimit = 2 * time.Minute

// scriptAwait is a program of the scripts: await ID STATE PHASE.
func scriptAwait() {
	ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
	defer cancel()
	id, err := strconv.ParseInt(os.Args[1], 10, 64)
	if err != nil {
		panic(err)
	}
	c, err := client.New(os.Getenv("RUNNEL_SERVER"), os.Getenv("RUNNEL_TOKEN"))
	if err != nil {
		panic(err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		o, err := c.Rollout(ctx, id)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(exitFailed)
		}
		if o.State == os.Args[2] && strconv.Itoa(o.Phase) == os.Args[3] {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			fmt.Fprintf(os.Stderr, "rollout %d is %s in phase %d: %s\n", id, o.State, o.Phase, o.Reason)
			os.Exit(exitFailed)
		}
	}
}
