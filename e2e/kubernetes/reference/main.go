// The reference service controller, as the benchmark measures it: the controller
// of k8s.io/cloud-provider, unchanged, on a cloud that answers at once and keeps
// everything in memory. Whatever time it takes is the controller's own.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/netip"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/controllers/service"
	"k8s.io/component-base/featuregate"
	"k8s.io/component-base/metrics/prometheus/controllers"
)

// options are the flags; their defaults are those that the cloud controller
// manager ships with.
type options struct {
	kubeconfig string
	workers    int
	qps        float64
	burst      int
	listen     string
}

// instantCloud has a load balancer for whoever asks. It counts its calls.
type instantCloud struct {
	mu        sync.Mutex
	addresses map[types.UID]netip.Addr
	next      netip.Addr

	ensures, updates, deletes atomic.Int64
}

func main() {
	var o options
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "the way to the API server")
	flag.IntVar(&o.workers, "concurrent-service-syncs", 1, "Services reconciled at once")
	flag.Float64Var(&o.qps, "kube-api-qps", 20, "requests per second; -1 for no limit")
	flag.IntVar(&o.burst, "kube-api-burst", 30, "requests at once, where they are limited")
	flag.StringVar(&o.listen, "listen", "127.0.0.1:8099", "where GET /counts is answered")
	flag.Parse()
	if err := run(o); err != nil {
		log.Fatal(err)
	}
}

func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = float32(o.qps), o.burst
	config.UserAgent = "service-controller"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	cloud := &instantCloud{
		addresses: map[types.UID]netip.Addr{},
		next:      netip.MustParseAddr("198.18.0.1"),
	}
	go func() { log.Fatal(http.ListenAndServe(o.listen, cloud)) }()

	factory := informers.NewSharedInformerFactory(client, 0)
	core := factory.Core().V1()
	controller, err := service.New(cloud, client, core.Services(), core.Nodes(),
		"kubernetes", featuregate.NewFeatureGate())
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	controller.Run(ctx, o.workers, controllers.NewControllerManagerMetrics("service-controller"))
	return nil
}

// ServeHTTP says how often the cloud was called.
func (c *instantCloud) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "{\"ensures\":%d,\"updates\":%d,\"deletes\":%d}\n",
		c.ensures.Load(), c.updates.Load(), c.deletes.Load())
}

// The load balancers.

func (c *instantCloud) GetLoadBalancer(_ context.Context, _ string, s *v1.Service) (*v1.LoadBalancerStatus, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	address, there := c.addresses[s.UID]
	if !there {
		return nil, false, nil
	}
	return status(address), true, nil
}

func (c *instantCloud) GetLoadBalancerName(_ context.Context, _ string, s *v1.Service) string {
	return string(s.UID)
}

func (c *instantCloud) EnsureLoadBalancer(_ context.Context, _ string, s *v1.Service, _ []*v1.Node) (*v1.LoadBalancerStatus, error) {
	c.ensures.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	address, there := c.addresses[s.UID]
	if !there {
		address = c.take(s)
		c.addresses[s.UID] = address
	}
	return status(address), nil
}

func (c *instantCloud) UpdateLoadBalancer(context.Context, string, *v1.Service, []*v1.Node) error {
	c.updates.Add(1)
	return nil
}

func (c *instantCloud) EnsureLoadBalancerDeleted(_ context.Context, _ string, s *v1.Service) error {
	c.deletes.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.addresses, s.UID)
	return nil
}

// take is the address that a Service has already, as a real cloud would still know
// after a restart, or else the next free one.
func (c *instantCloud) take(s *v1.Service) netip.Addr {
	for _, ingress := range s.Status.LoadBalancer.Ingress {
		if address, err := netip.ParseAddr(ingress.IP); err == nil {
			return address
		}
	}
	address := c.next
	c.next = c.next.Next()
	return address
}

func status(address netip.Addr) *v1.LoadBalancerStatus {
	// As the API server completes it; without it each status would seem to differ.
	mode := v1.LoadBalancerIPModeVIP
	return &v1.LoadBalancerStatus{Ingress: []v1.LoadBalancerIngress{{IP: address.String(), IPMode: &mode}}}
}

// What else a cloud could offer.

func (c *instantCloud) LoadBalancer() (cloudprovider.LoadBalancer, bool) { return c, true }

func (*instantCloud) Initialize(cloudprovider.ControllerClientBuilder, <-chan struct{}) {}
func (*instantCloud) Instances() (cloudprovider.Instances, bool)                        { return nil, false }
func (*instantCloud) InstancesV2() (cloudprovider.InstancesV2, bool)                    { return nil, false }
func (*instantCloud) Zones() (cloudprovider.Zones, bool)                                { return nil, false }
func (*instantCloud) Clusters() (cloudprovider.Clusters, bool)                          { return nil, false }
func (*instantCloud) Routes() (cloudprovider.Routes, bool)                              { return nil, false }
func (*instantCloud) ProviderName() string                                              { return "instant" }
func (*instantCloud) HasClusterID() bool                                                { return true }
