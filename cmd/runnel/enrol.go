package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/devicehttp"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// enrolOptions is what runnel enrol is called with.
type enrolOptions struct {
	server, token, tokenFile, id, hardware, out string
	json                                        bool
}

func newEnrolCmd() *cobra.Command {
	var o enrolOptions
	cmd := &cobra.Command{
		Use:   "enrol",
		Short: "Be a device that becomes known by a token",
		Long: `Asks a server, as a device, to become known by a token, and writes the secret that
both sides then compute to the file that -o names: 64 hex digits, mode 0600, the
device's native key number 0. Neither it nor the token's secret crosses the wire.

The request is kept in FILE.pending until it is answered for good: where the answer got
lost, or the device waits for approval, the same command asks the same again.

--json prints {"device","status":"taken"|"waiting","file"}; no key is in it. Exit status 1
where the device waits or is refused.`,
		Example: "  runnel enrol --server https://fota.example.com --token-file line-3.token --id pump-7 --hardware pump-r2 -o pump-7.key",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return enrol(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "the server's `URL` (or RUNNEL_SERVER)")
	f.StringVar(&o.token, "token", "", "the token, `ID:SECRET`; other users of this machine can see it, and the shell keeps it")
	f.StringVar(&o.tokenFile, "token-file", "", "`file` with the token; - is standard input")
	f.StringVar(&o.id, "id", "", "the device's `id`")
	f.StringVar(&o.hardware, "hardware", "", "its hardware, as manifests `name` it")
	f.StringVarP(&o.out, "out", "o", "", "`file` for its key; it must not exist")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	return cmd
}

// pending is a request that is not answered for good.
type pending struct {
	Token    string `json:"token"` // its public id
	Device   string `json:"device"`
	Hardware string `json:"hardware"`
	Nonce    string `json:"nonce"`
}

func enrol(cmd *cobra.Command, o enrolOptions) error {
	if o.server == "" {
		o.server = os.Getenv("RUNNEL_SERVER")
	}
	for _, f := range [][2]string{{"--server", o.server}, {"--id", o.id}, {"--hardware", o.hardware}, {"-o", o.out}} {
		if f[1] == "" {
			return usagef("%s is missing", f[0]).withHint("see 'runnel enrol --help'")
		}
	}
	e, err := o.enrolment(cmd)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(o.out); !errors.Is(err, fs.ErrNotExist) {
		return hinted(fmt.Errorf("%s exists", o.out), "name another file, or move that one away")
	}
	c, err := devicehttp.New(o.server)
	if err != nil {
		return usagef("%v", err)
	}
	defer c.Close()
	ask := o.out + ".pending"
	if e.Nonce, err = nonceOf(ask, e); err != nil {
		return err
	}
	status, secret, err := c.Enrol(cmd.Context(), e)
	var no *devicehttp.StatusError
	switch {
	case errors.As(err, &no) && no.Status == 401:
		return hinted(err, "the token is not known there, is revoked, or its secret is another")
	case err != nil:
		return hinted(fmt.Errorf("enrol: %w", err), "try again: the same request gets the same answer")
	case status == native.EnrolRefused:
		return errors.Join(hinted(errors.New("the server refuses this device"),
			"the token is spent, has expired or is not for this id, or the id is known already; the server's log says which"), os.Remove(ask))
	case status == native.EnrolWaits:
		if o.json {
			if err := printJSON(cmd.OutOrStdout(), map[string]string{"device": o.id, "status": "waiting", "file": ""}); err != nil {
				return err
			}
		}
		return hinted(fmt.Errorf("%s waits for approval", o.id), "an operator says yes with 'runnel devices approve %s'; then call this again", o.id)
	}
	// The key is on the disk before the request is forgotten.
	if err := writeSecret(o.out, hex.EncodeToString(secret[:])); err != nil {
		return err
	}
	if err := os.Remove(ask); err != nil {
		return err
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), map[string]string{"device": o.id, "status": "taken", "file": o.out})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s is known; its native key, number 0, is in %s\n", o.id, o.out)
	return nil
}

// enrolment checks what is said of the device, and reads the token.
func (o *enrolOptions) enrolment(cmd *cobra.Command) (devicehttp.Enrolment, error) {
	e := devicehttp.Enrolment{Device: o.id, Hardware: o.hardware}
	if err := fleet.ValidateDeviceID(o.id); err != nil {
		return e, usagef("--id: %v", err)
	}
	text := o.token
	switch {
	case o.token != "" && o.tokenFile != "":
		return e, usagef("--token and --token-file exclude each other")
	case o.tokenFile != "":
		b, err := readSmall(cmd, o.tokenFile)
		if err != nil {
			return e, fmt.Errorf("token file: %w", err)
		}
		text = strings.TrimSpace(string(b))
	case o.token == "":
		return e, usagef("--token-file is missing").withHint("'runnel tokens add' makes a token")
	}
	id, secret, ok := strings.Cut(text, ":")
	b, err := hex.DecodeString(secret)
	if !ok || id == "" || err != nil || len(b) != len(e.TokenSecret) {
		return e, usagef("this is no token: it has the form ID:SECRET, with 64 hex digits")
	}
	e.Token = id
	copy(e.TokenSecret[:], b)
	return e, nil
}

// nonceOf is the nonce of the request that is kept in path, or of a new one, which
// is on the disk before it is sent.
func nonceOf(path string, e devicehttp.Enrolment) (nonce [native.NonceSize]byte, err error) {
	want := pending{Token: e.Token, Device: e.Device, Hardware: e.Hardware}
	text, err := os.ReadFile(path)
	if err == nil {
		var p pending
		n, bad := []byte(nil), json.Unmarshal(text, &p)
		if bad == nil {
			n, bad = hex.DecodeString(p.Nonce)
		}
		want.Nonce = p.Nonce
		if bad != nil || len(n) != len(nonce) || p != want {
			return nonce, hinted(fmt.Errorf("%s is of another request", path), "move it away, or name another file with -o")
		}
		copy(nonce[:], n)
		return nonce, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nonce, err
	}
	if _, err := rand.Read(nonce[:]); err != nil {
		return nonce, err
	}
	want.Nonce = hex.EncodeToString(nonce[:])
	var out bytes.Buffer
	if err := json.NewEncoder(&out).Encode(want); err != nil {
		return nonce, err
	}
	return nonce, writeSecret(path, strings.TrimSpace(out.String()))
}

// readSmall reads a file, or standard input for -, of at most maxKeyFile bytes.
func readSmall(cmd *cobra.Command, path string) ([]byte, error) {
	in := cmd.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	return io.ReadAll(io.LimitReader(in, maxKeyFile))
}

// readKeyFile reads 64 hex digits.
func readKeyFile(cmd *cobra.Command, path string) (string, error) {
	b, err := readSmall(cmd, path)
	if err != nil {
		return "", fmt.Errorf("key file: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if k, err := hex.DecodeString(text); err != nil || len(k) != 32 {
		return "", usagef("the key is not 64 hex digits: it has %d characters", len(text)).withHint("make one with 'openssl rand -hex 32'")
	}
	return text, nil
}
