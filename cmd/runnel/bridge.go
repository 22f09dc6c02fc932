package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/internal/bridge"
	"github.com/runnel-fota/runnel/internal/devicehttp"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/term"
)

// bridgeRun are the flags of bridge.
type bridgeRun struct {
	serial, server string
	baud           int
	listen, asJSON bool
}

func newBridgeCmd() *cobra.Command {
	var o bridgeRun
	cmd := &cobra.Command{
		Use:   "bridge --serial LINE --server URL",
		Short: "Speak HTTP for a board that has a serial line",
		Long: `Speaks HTTP for a board that has a UART and no network: it takes the board's calls
from a serial line, sends them to the server, and hands the answers back. It has no
keys: the board checks by itself what comes, as over any network. Only the devices'
own paths are fetched, one request at a time.

LINE is a device file (Linux), unix:PATH or tcp:HOST:PORT, where an emulator or a
terminal server has the line. It waits until the line is there, and again when it
goes. With --listen the board connects to it: what an emulator's -serial unix:PATH
wants; on TCP from this machine only.

Prints one line an event, with --json one JSON object an event: t (seconds), event
(listening, waiting, connected, gone, session, request, failed, refused, damaged,
board, stopped), line, method, target, status, said, reason, slot, bytes, count, text;
empty members are left away. said is what the board tells of itself, named as in
'runnel board run --json'.`,
		Example: `  runnel bridge --serial /dev/ttyUSB0 --server http://127.0.0.1:8080
  runnel bridge --serial /dev/ttyACM0 --baud 460800 --json
  runnel bridge --serial unix:board.sock --listen
  runnel bridge --serial tcp:192.168.1.9:2217`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&o.serial, "serial", "", "the `line`: a device file, unix:PATH or tcp:HOST:PORT")
	f.IntVar(&o.baud, "baud", bridge.DefaultBaud, "bits a `second`, of a device file")
	f.BoolVar(&o.listen, "listen", false, "let the board connect to the socket, instead of connecting to it")
	f.StringVar(&o.server, "server", "", "the server's `URL` (or RUNNEL_SERVER)")
	f.BoolVar(&o.asJSON, "json", false, "one JSON object an event")
	return cmd
}

func (o *bridgeRun) run(cmd *cobra.Command) error {
	hint := "see 'runnel bridge --help'"
	if o.server == "" {
		o.server = os.Getenv("RUNNEL_SERVER")
	}
	switch {
	case o.serial == "":
		return usagef("--serial is missing").withHint("the line to the board, e.g. /dev/ttyUSB0 or unix:board.sock; %s", hint)
	case o.server == "":
		return usagef("--server is missing").withHint("give --server URL or set RUNNEL_SERVER, e.g. http://127.0.0.1:8080")
	}
	line, err := bridge.ParseLine(o.serial, o.baud, o.listen)
	if err != nil {
		return usagef("%v", err).withHint("%s", hint)
	}
	if cmd.Flags().Changed("baud") && (strings.HasPrefix(o.serial, "unix:") || strings.HasPrefix(o.serial, "tcp:")) {
		return usagef("--baud is for a device file: a socket has no rate")
	}
	client, err := devicehttp.New(o.server)
	if err != nil {
		return usagef("%v", err)
	}
	defer client.Close()
	src, err := line.Start()
	if err != nil {
		return hinted(err, "another bridge or program may have it: name another line, or end that one")
	}
	log := &bridgeLog{w: cmd.OutOrStdout(), asJSON: o.asJSON, start: time.Now(), line: o.serial}
	err = o.carry(cmd.Context(), src, client, log)
	if cerr := src.Close(); cmd.Context().Err() == nil {
		err = errors.Join(err, cerr)
	}
	return errors.Join(err, log.err)
}

// carry serves one line after the other until the context ends.
func (o *bridgeRun) carry(ctx context.Context, src *bridge.Source, client *devicehttp.Client, log *bridgeLog) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	log.stop = stop
	if addr := src.Addr(); addr != "" {
		log.emit(bridgeEvent{Event: "listening", Text: addr})
	}
	for {
		rw, err := src.Next(ctx, func(why error) { log.emit(bridgeEvent{Event: "waiting", Text: whyNot(why)}) })
		if ctx.Err() != nil {
			log.emit(bridgeEvent{Event: "stopped"})
			return nil
		}
		if err != nil {
			return lineError(o.serial, err)
		}
		log.emit(bridgeEvent{Event: "connected"})
		err = bridge.Serve(ctx, rw, bridge.Options{Fetch: bridge.Over(client.Do), OnEvent: log.event})
		if ctx.Err() == nil {
			text := "the other side closed it"
			if !errors.Is(err, io.EOF) {
				text = whyNot(err)
			}
			log.emit(bridgeEvent{Event: "gone", Text: text})
		}
	}
}

func lineError(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return hinted(err, "this user may not use %s: serial devices belong to a group such as dialout or uucp", name)
	case errors.Is(err, bridge.ErrLine):
		return hinted(err, "name the device of the board's UART, such as /dev/ttyUSB0; sockets are unix:PATH and tcp:HOST:PORT")
	}
	return err
}

// bridgeEvent is one line of what a bridge does, for people or as JSON.
type bridgeEvent struct {
	Seconds float64 `json:"t"` // since the command began
	Event   string  `json:"event"`
	Line    string  `json:"line,omitempty"`
	Method  string  `json:"method,omitempty"`
	Target  string  `json:"target,omitempty"`
	Status  int     `json:"status,omitempty"`
	Said    string  `json:"said,omitempty"`
	Reason  string  `json:"reason,omitempty"`
	Slot    string  `json:"slot,omitempty"`
	Bytes   uint32  `json:"bytes,omitempty"`
	Count   int     `json:"count,omitempty"`
	Text    string  `json:"text,omitempty"`
}

// bridgeLog writes events as they come.
type bridgeLog struct {
	w      io.Writer
	asJSON bool
	start  time.Time
	line   string
	stop   func() // ends the bridge: nobody reads what it says

	mu  sync.Mutex
	err error
}

var bridgeKinds = map[bridge.Kind]string{
	bridge.KindOpened: "session", bridge.KindRequested: "request", bridge.KindFailed: "failed", bridge.KindSaid: "board",
	bridge.KindRefused: "refused", bridge.KindDamaged: "damaged",
}

func (l *bridgeLog) event(e bridge.Event) {
	out := bridgeEvent{Event: bridgeKinds[e.Kind], Method: e.Method, Target: e.Target, Status: e.Status, Count: e.Count}
	switch e.Kind {
	case bridge.KindOpened:
		out.Text = "a board began"
	case bridge.KindSaid:
		if out.Said = eventNames[e.Said.Kind]; out.Said == "" {
			out.Said = fmt.Sprintf("event %d", e.Said.Kind)
		}
		out.Slot, out.Bytes = slotName(e.Said.Slot), e.Said.Bytes
		if e.Said.Reason != device.ReasonNone {
			out.Reason = e.Said.Reason.String()
		}
	case bridge.KindDamaged:
		out.Text = "damaged frames in this session: they are sent again"
	}
	if e.Err != nil {
		out.Text = whyNot(e.Err)
	}
	l.emit(out)
}

func (l *bridgeLog) emit(e bridgeEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	e.Seconds = time.Since(l.start).Seconds()
	switch e.Event {
	case "listening", "waiting", "connected", "gone":
		e.Line = l.line
	}
	b := []byte(e.text())
	if l.asJSON {
		b, l.err = json.Marshal(e)
	}
	if l.err == nil {
		_, l.err = l.w.Write(append(b, '\n'))
	}
	if l.err != nil {
		l.stop()
	}
}

// text is the event for people.
func (e *bridgeEvent) text() string {
	s := ""
	add := func(t string) {
		if t != "" && s != "" {
			s += " "
		}
		s += t
	}
	for _, t := range []string{e.Line, e.Method, e.Target, e.Said, e.Slot} {
		add(t)
	}
	if e.Status != 0 {
		add(fmt.Sprint(e.Status))
	}
	if e.Bytes > 0 {
		add(term.Number(e.Bytes) + " bytes")
	}
	if e.Count > 0 {
		add(term.Number(e.Count))
	}
	for _, t := range []string{e.Text, e.Reason} {
		if t != "" && s != "" && e.Count == 0 {
			s += ": "
		} else if t != "" && s != "" {
			s += " "
		}
		s += t
	}
	return strings.TrimRight(fmt.Sprintf("%8.2fs  %-10s %s", e.Seconds, e.Event, fleet.CleanText(s, 400)), " ")
}
