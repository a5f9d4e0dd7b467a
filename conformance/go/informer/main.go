// Command informer follows the Gateway API objects of an API server with client-go's informers, unchanged, and checks
// what they saw: list, watch, relist after 410, bookmarks, streaming lists (WatchList).
//
// It prints one line for each check and ends with exit code 1 at the first that does not hold.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	namespace = "informer"
	deadline  = 30 * time.Second
)

var routes = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}

// seen counts what an informer told.
type seen struct {
	added, updated, deleted atomic.Int64
	mutex                   sync.Mutex
	versions                map[string]string
}

func (s *seen) handler() cache.ResourceEventHandlerFuncs {
	note := func(object any) {
		if final, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = final.Obj
		}
		if item, ok := object.(metav1.Object); ok {
			s.mutex.Lock()
			s.versions[item.GetName()] = item.GetResourceVersion()
			s.mutex.Unlock()
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { note(object); s.added.Add(1) },
		UpdateFunc: func(_, object any) { note(object); s.updated.Add(1) },
		DeleteFunc: func(object any) { note(object); s.deleted.Add(1) },
	}
}

func main() {
	kubeconfig := flag.String("kubeconfig", os.Getenv("KUBECONFIG"), "of an administrator")
	changes := flag.Int("changes", 0, "more changes than the server retains; 0 leaves out what needs a 410")
	flag.Parse()
	if err := run(context.Background(), *kubeconfig, *changes); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig string, changes int) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 1000, 1000
	// Protobuf is asked for and refused: clients fall back to JSON by themselves.
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	generic, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := prepare(ctx, typed); err != nil {
		return err
	}
	for _, check := range []struct {
		name string
		run  func() error
	}{
		{"dynamic informer: list, then watch", func() error { return informer(ctx, generic) }},
		{"typed informer of ConfigMaps, with a label selector", func() error { return selected(ctx, typed) }},
		{"WatchList: initial events end with a bookmark", func() error { return streamed(ctx, typed) }},
		{"relist after 410", func() error { return relisted(ctx, typed, changes) }},
	} {
		if err := check.run(); err != nil {
			return fmt.Errorf("%s: %w", check.name, err)
		}
		fmt.Printf("ok  %s\n", check.name)
	}
	return typed.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})
}

func prepare(ctx context.Context, client kubernetes.Interface) error {
	wanted := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	_, err := client.CoreV1().Namespaces().Create(ctx, wanted, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func route(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "gateway.networking.k8s.io/v1",
		"kind":       "HTTPRoute",
		"metadata":   map[string]any{"name": name, "namespace": namespace},
		"spec":       map[string]any{"hostnames": []any{name + ".example.com"}},
	}}
}

// informer: what was there before and what comes later is told once each, and the cache is what the server has.
func informer(ctx context.Context, client dynamic.Interface) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := client.Resource(routes).Namespace(namespace)
	for _, name := range []string{"one", "two"} {
		if _, err := in.Create(ctx, route(name), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, namespace, nil)
	shared := factory.ForResource(routes).Informer()
	told := &seen{versions: map[string]string{}}
	if _, err := shared.AddEventHandler(told.handler()); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), shared.HasSynced) {
		return fmt.Errorf("the cache was not filled")
	}
	if _, err := in.Create(ctx, route("three"), metav1.CreateOptions{}); err != nil {
		return err
	}
	patch := []byte(`{"metadata":{"labels":{"a":"b"}}}`)
	changed, err := in.Patch(ctx, "one", "application/merge-patch+json", patch, metav1.PatchOptions{})
	if err != nil {
		return err
	}
	if err := in.Delete(ctx, "two", metav1.DeleteOptions{}); err != nil {
		return err
	}
	err = eventually(ctx, func() bool {
		return told.added.Load() == 3 && told.updated.Load() >= 1 && told.deleted.Load() == 1 &&
			len(shared.GetStore().ListKeys()) == 2
	})
	if err != nil {
		return fmt.Errorf("added %d, updated %d, deleted %d: %w",
			told.added.Load(), told.updated.Load(), told.deleted.Load(), err)
	}
	told.mutex.Lock()
	defer told.mutex.Unlock()
	if told.versions["one"] != changed.GetResourceVersion() {
		return fmt.Errorf("route one is at %s, told was %s", changed.GetResourceVersion(), told.versions["one"])
	}
	return nil
}

// selected: objects come and go as they begin and cease to match.
func selected(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	option := informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.LabelSelector = "chosen=yes" })
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace), option)
	shared := factory.Core().V1().ConfigMaps().Informer()
	told := &seen{versions: map[string]string{}}
	if _, err := shared.AddEventHandler(told.handler()); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), shared.HasSynced) {
		return fmt.Errorf("the cache was not filled")
	}
	in := client.CoreV1().ConfigMaps(namespace)
	made, err := in.Create(ctx, configMap("chosen", "no"), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	for _, chosen := range []string{"yes", "no"} {
		made.Labels["chosen"] = chosen
		if made, err = in.Update(ctx, made, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return eventually(ctx, func() bool {
		return told.added.Load() == 1 && told.deleted.Load() == 1 && len(shared.GetStore().ListKeys()) == 0
	})
}

// streamed: a reflector asks for a streaming list first (WatchList); here the stream itself is looked at.
func streamed(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	if _, err := client.CoreV1().ConfigMaps(namespace).Create(ctx, configMap("streamed", ""), metav1.CreateOptions{}); err != nil {
		return err
	}
	yes := true
	stream, err := client.CoreV1().ConfigMaps(namespace).Watch(ctx, metav1.ListOptions{
		SendInitialEvents:    &yes,
		AllowWatchBookmarks:  true,
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	if err != nil {
		return err
	}
	defer stream.Stop()
	found := 0
	for event := range stream.ResultChan() {
		item, ok := event.Object.(*corev1.ConfigMap)
		if !ok {
			return fmt.Errorf("an event of %T", event.Object)
		}
		switch {
		case event.Type == watch.Added:
			found++
		case event.Type == watch.Bookmark && item.Annotations[metav1.InitialEventsAnnotationKey] == "true":
			if found == 0 || item.ResourceVersion == "" {
				return fmt.Errorf("%d objects before the bookmark at %q", found, item.ResourceVersion)
			}
			return nil
		default:
			return fmt.Errorf("an event %s before the bookmark", event.Type)
		}
	}
	return fmt.Errorf("the stream ended before its bookmark")
}

// relisted: a watch from a version that is no longer retained is refused with 410, and an informer that meets this
// lists again and misses nothing.
func relisted(ctx context.Context, client kubernetes.Interface, changes int) error {
	if changes == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := client.CoreV1().ConfigMaps(namespace)
	before, err := in.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	// An informer whose first watch is answered with 410, because its list is by then too old.
	var watches, lists atomic.Int64
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			lists.Add(1)
			return in.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			if watches.Add(1) == 1 {
				options.ResourceVersion = before.ResourceVersion
				options.SendInitialEvents, options.ResourceVersionMatch = nil, ""
			}
			return in.Watch(ctx, options)
		},
	}
	made, err := in.Create(ctx, configMap("counted", ""), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	for number := range changes {
		made.Data = map[string]string{"number": fmt.Sprint(number)}
		if made, err = in.Update(ctx, made, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	stream, err := in.Watch(ctx, metav1.ListOptions{ResourceVersion: before.ResourceVersion})
	if err == nil {
		event := <-stream.ResultChan()
		stream.Stop()
		err = apierrors.FromObject(event.Object)
	}
	if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		return fmt.Errorf("a watch from %s was answered with %v", before.ResourceVersion, err)
	}
	shared := cache.NewSharedInformer(source, &corev1.ConfigMap{}, 0)
	go shared.RunWithContext(ctx)
	last := made.ResourceVersion
	return eventually(ctx, func() bool {
		item, found, _ := shared.GetStore().GetByKey(namespace + "/counted")
		return found && item.(*corev1.ConfigMap).ResourceVersion == last && watches.Load() >= 2
	})
}

func configMap(name, chosen string) *corev1.ConfigMap {
	labels := map[string]string{"chosen": chosen}
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: labels}}
}

func eventually(ctx context.Context, holds func() bool) error {
	condition := func(context.Context) (bool, error) { return holds(), nil }
	return wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, deadline, true, condition)
}
