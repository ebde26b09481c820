// Search without a server: a browser runs no Worker on a page of file://. There the
// script of a worker runs in a hidden frame, and messages are passed by hand.
if (location.protocol === 'file:') {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement('iframe');
      this.frame.hidden = true;
      document.documentElement.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) =>
        setTimeout(() => this.dispatchEvent(new MessageEvent('message', { data })));
      inside.importScripts = async (...urls) => {
        for (const one of urls) await this.load(one);
      };
      this.load(new URL(url, document.baseURI)).then(() => {
        const waiting = this.waiting;
        this.waiting = null;
        waiting.forEach((data) => this.postMessage(data));
      });
    }

    load(url) {
      const page = this.frame.contentDocument;
      const script = page.createElement('script');
      script.src = url;
      return new Promise((done, failed) => {
        script.onload = done;
        script.onerror = failed;
        page.head.append(script);
      });
    }

    postMessage(data) {
      if (this.waiting) return this.waiting.push(data);
      const inside = this.frame.contentWindow;
      setTimeout(() =>
        inside.dispatchEvent(new inside.MessageEvent('message', { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
