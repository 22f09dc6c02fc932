package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/devicehttp"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/sim/light"
)

// How the devices of a simulated fleet become known to the server.

// simKeys is what ids and keys of a fleet follow from.
type simKeys struct {
	Prefix string `json:"id_prefix"`
	Secret string `json:"secret"` // 64 hex digits

	secret []byte
	again  bool // read from a file: the devices may be known
}

// key is a device's. Nobody who knows one knows another.
func (k *simKeys) key(id string) (out [native.SecretSize]byte) {
	m := hmac.New(sha256.New, k.secret)
	m.Write([]byte("runnel fleet sim device\x00" + id))
	copy(out[:], m.Sum(nil))
	return out
}

// openSimKeys reads the file, or makes it; path "": they are for this run alone.
func openSimKeys(cmd *cobra.Command, path, prefix string) (*simKeys, error) {
	if path != "" {
		text, err := readSmall(cmd, path)
		if err == nil {
			k := &simKeys{again: true}
			bad := json.Unmarshal(text, k)
			if bad == nil {
				k.secret, bad = hex.DecodeString(k.Secret)
			}
			if bad != nil || len(k.secret) != 32 || fleet.ValidateDeviceID(simID(k.Prefix, 0)) != nil {
				return nil, hinted(fmt.Errorf("%s is no file of a fleet's keys", path), "name another one: it is made where it is not there")
			}
			return k, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("keys: %w", err)
		}
	}
	var random [32 + 3]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	k := &simKeys{Prefix: prefix, Secret: hex.EncodeToString(random[:32]), secret: random[:32]}
	if k.Prefix == "" {
		k.Prefix = fmt.Sprintf("sim-%x-", random[32:])
	}
	if path == "" {
		return k, nil
	}
	text, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	return k, writeSecret(path, string(text))
}

// enrollers is how many devices are made known at once: each is a transaction, and the
// server has one writer.
const enrollers = 8

// makeKnown makes the boards known and gives them their keys; told hears how many are.
func (o *fleetOptions) makeKnown(ctx context.Context, cmd *cobra.Command, c *client.Client, list []light.Board, told func(int)) error {
	keys, err := openSimKeys(cmd, o.keys, o.prefix)
	if err != nil {
		return err
	}
	for i := range list {
		list[i].ID, list[i].Hardware = simID(keys.Prefix, i), o.hardwareOf(i)
		if o.token == "" {
			list[i].Secret = keys.key(list[i].ID)
		}
	}
	one := func(ctx context.Context, b *light.Board) error { return addSimDevice(ctx, c, o.product, b, keys.again) }
	if o.token != "" {
		e, err := (&enrolOptions{tokenFile: o.token, id: list[0].ID, hardware: list[0].Hardware}).enrolment(cmd)
		if err != nil {
			return err
		}
		d, err := devicehttp.New(o.server)
		if err != nil {
			return usagef("%v", err)
		}
		defer d.Close()
		one = func(ctx context.Context, b *light.Board) error { return enrolSimDevice(ctx, d, e, b) }
	}
	var next, done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(enrollers, len(list)) {
		g.Go(func() error {
			for i := int(next.Add(1)) - 1; i < len(list); i = int(next.Add(1)) - 1 {
				if err := one(ctx, &list[i]); err != nil {
					return fmt.Errorf("%s: %w", list[i].ID, err)
				}
				told(int(done.Add(1)))
			}
			return nil
		})
	}
	return g.Wait()
}

func addSimDevice(ctx context.Context, c *client.Client, product string, b *light.Board, again bool) error {
	_, err := c.AddNativeDevice(ctx, b.ID, product, hex.EncodeToString(b.Secret[:]), "")
	if again && fleet.CodeOf(err) == fleet.CodeConflict {
		return nil // it was made known the last time
	}
	return err
}

func enrolSimDevice(ctx context.Context, c *devicehttp.Client, e devicehttp.Enrolment, b *light.Board) error {
	e.Device, e.Hardware = b.ID, b.Hardware
	if _, err := rand.Read(e.Nonce[:]); err != nil {
		return err
	}
	status, secret, err := c.Enrol(ctx, e)
	var no *devicehttp.StatusError
	switch {
	case errors.As(err, &no) && no.Status == 401:
		return hinted(err, "the token is not known there, is revoked, or its secret is another")
	case err != nil:
		return err
	case status == native.EnrolRefused:
		return hinted(errors.New("the server refuses this device"), "the token is spent, has expired or is not for this id: 'runnel tokens add --count N' says for how many it is, and --id-prefix here what ids begin with")
	case status == native.EnrolWaits:
		return hinted(errors.New("it waits for approval"), "a simulated fleet needs a token without --approval")
	}
	b.Secret = secret
	return nil
}
