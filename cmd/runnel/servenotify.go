package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/notify"
	"github.com/runnel-fota/runnel/internal/rollout"
)

// maxNotifySecret is more than any secret has, bytes: a wrong file is refused before it is held.
const maxNotifySecret = 1024

// hook is the operator's, nil where none is named.
func (c *serveConfig) hook() (*notify.Hook, error) {
	if c.notify == "" {
		return nil, nil
	}
	var secret []byte
	if c.notifySecret == "" {
		c.log.Warn("notifications are not signed: who knows the address can make some up", "hint", "give --notify-secret-file")
	} else {
		text, err := readBounded(c.notifySecret, maxNotifySecret)
		if err != nil {
			return nil, hinted(err, "'openssl rand -hex 32 > FILE' makes a secret; the receiver gets the same")
		}
		// A line's end is an editor's, not the secret's.
		if secret = bytes.TrimRight(text, "\r\n"); len(secret) < notify.MinSecret {
			return nil, &fleet.Error{Code: fleet.CodeInvalid, Message: fmt.Sprintf("%s has %d bytes, a secret %d at least", c.notifySecret, len(secret), notify.MinSecret),
				Hint: "'openssl rand -hex 32 > FILE' makes one"}
		}
	}
	return notify.New(notify.Config{URL: c.notify, Secret: secret, Log: c.log, Now: time.Now})
}

// runRollouts runs the engine, and the hook until what the engine told last was tried.
func runRollouts(ctx context.Context, engine *rollout.Engine, hook *notify.Hook) error {
	if hook == nil {
		return engine.Run(ctx)
	}
	hooked, stop := context.WithCancel(context.WithoutCancel(ctx))
	told := make(chan error, 1)
	go func() { told <- hook.Run(hooked) }()
	err := engine.Run(ctx)
	stop()
	return errors.Join(err, <-told)
}
