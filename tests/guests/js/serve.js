// A handler of wasi:http/incoming-handler@0.2: `/`, `/echo`, `/status/N` as `components/serve` has them.
addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const path = new URL(request.url).pathname;
  if (path === "/") return new Response("hello from JavaScript\n");
  if (path === "/echo") return new Response(request.body);
  const status = path.match(/^\/status\/(\d+)$/)?.[1];
  if (status) return new Response(`status ${status}\n`, { status: Number(status) });
  return new Response("no such path\n", { status: 404 });
}
