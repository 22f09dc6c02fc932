package adminapi

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/runnel-fota/runnel/internal/fleet"
)

type eventsOutput struct {
	Body struct {
		Total  int           `json:"total" doc:"how many there are in all"`
		Events []fleet.Event `json:"events"`
	}
}

func (s *server) events(ctx context.Context, device string, limit int) (*eventsOutput, error) {
	list, total, err := s.Events.Events(ctx, device, min(max(limit, 1), maxEvents))
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	o := &eventsOutput{}
	o.Body.Total = total
	o.Body.Events = append([]fleet.Event{}, list...)
	return o, nil
}

// readyTimeout is how long whoever asks for the server's health waits for its database.
const readyTimeout = 2 * time.Second

// others: keys of products, the log, health.
func (s *server) others() {
	type keyInput struct {
		Body struct {
			Product string `json:"product" maxLength:"64"`
			PSK     string `json:"psk" maxLength:"64" doc:"64 hex digits"`
		}
	}
	type keyOutput struct {
		Body struct {
			Product string `json:"product"`
			Warning string `json:"warning"`
		}
	}
	huma.Register(s.api, op("set-product-key", "POST", "/product-keys", "Set the key that devices of a product share"), func(ctx context.Context, in *keyInput) (*keyOutput, error) {
		err := fleet.ValidateProduct(in.Body.Product)
		var key fleet.Key
		if err == nil {
			key, err = parseKey("psk", in.Body.PSK)
		}
		if err == nil {
			err = s.Devices.SetProductKey(ctx, in.Body.Product, key, s.Now())
		}
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &keyOutput{}
		o.Body.Product = in.Body.Product
		o.Body.Warning = "with a shared key every device of the product can speak in the name of every other"
		return o, nil
	})
	type logsInput struct {
		Device string `query:"device" doc:"only this device's"`
		Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	}
	huma.Register(s.api, op("logs", "GET", "/logs", "What happened, newest first"), func(ctx context.Context, in *logsInput) (*eventsOutput, error) {
		return s.events(ctx, in.Device, in.Limit)
	})
	type healthOutput struct {
		Body struct {
			Status string `json:"status"`
		}
	}
	health := op("health", "GET", "/health", "Whether the server answers, and its database")
	health.Security, health.Errors = nil, nil
	huma.Register(s.api, health, func(ctx context.Context, _ *empty) (*healthOutput, error) {
		if s.Ready != nil {
			ctx, cancel := context.WithTimeout(ctx, readyTimeout)
			defer cancel()
			if err := s.Ready(ctx); err != nil {
				return nil, s.fail(ctx, err)
			}
		}
		o := &healthOutput{}
		o.Body.Status = "ok"
		return o, nil
	})
}
